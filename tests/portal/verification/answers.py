"""Answers of the right form that no model gave, for what happens before anything is computed."""

import base64
import json
import struct


def floats(count, value=1.0):
    return base64.b64encode(struct.pack(f"<{count}f", *[value] * count)).decode()


def made_up(challenge, /, **changes):
    """An answer to a drawn challenge, by a model of one layer and eight tokens."""
    ids = struct.pack("<8i", *range(8)) * challenge.positions
    positions = challenge.positions
    content = {
        "schema": "weighbridge.answer/1",
        "challenge": str(challenge.pk),
        "positions": positions,
        "layers": 1,
        "width": 16,
        "vocab": 8,
        "logsumexp": floats(positions),
        "ids": base64.b64encode(ids).decode(),
        "logits": floats(8 * positions),
        "sketch": floats(16 * positions),
        "activations": floats(2 * positions // 4 * 5),
        "probes": {"names": ["lm_head.weight"], "signatures": floats(4)},
    }
    return json.dumps(content | changes).encode()
