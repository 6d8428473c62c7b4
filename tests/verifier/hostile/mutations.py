"""Ways to spoil good bytes and good JSON, for Hypothesis to choose from and to shrink."""

import copy
import json
import struct
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

fuzzed = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""What every fuzz test is under; how many examples it takes is the profile's to say."""

NUMBERS = [0, 1, -1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**63 - 1]
NUMBERS += [2**63, 2**64 - 1, 10**30, -(2**63)]
TEXTS = ["", ".", "..", "../x", "/", "a/../../b", "a\nb", "\0", "\u202e", "\ud800", "x" * 5000]
TEXTS += [
    "F32",
    "BF16",
    "files",
    "sha256",
    "<b>",
    "</script>",
    "%s{0}",
    "é",
    "e\u0301",
    "\U0001f600",
]


@st.composite
def spoiled(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes of ``good`` flipped, cut out, doubled, put in, or read as other numbers."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "double", "insert", "truncate", "number"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "truncate":
                del data[at:]
            case "number":
                form = draw(st.sampled_from(["<H", "<L", "<Q"]))
                value = draw(st.sampled_from(NUMBERS)) % (1 << (8 * struct.calcsize(form)))
                packed = struct.pack(form, value)
                data[at : at + len(packed)] = packed
    return bytes(data)


odd = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.floats()
    | st.sampled_from(TEXTS)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
"""A JSON value that is probably not what somebody waits for."""


@st.composite
def spoiled_json(draw: st.DrawFn, good: Any, most: int = 3) -> Any:
    """A value like ``good`` with places changed, taken out, or taken from elsewhere in it."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(value))
        if not places:
            return draw(odd)
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "remove", "swap", "rename"])):
            case "replace":
                holder[key] = draw(odd)
            case "remove":
                del holder[key]
            case "swap":
                other, from_key = draw(st.sampled_from(places))
                if isinstance(other, dict) and from_key in other:
                    holder[key] = copy.deepcopy(other[from_key])
            case "rename" if isinstance(holder, dict):
                holder[draw(st.sampled_from(TEXTS))] = holder.pop(key)
    return value


def _places(value: Any) -> Any:
    """Yield every (holder, key) in ``value``."""
    pending = [value]
    while pending:
        holder = pending.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                pending.append(holder[key])


def as_json(value: Any) -> bytes:
    """Return ``value`` as JSON that a stranger's program could have written, NaN included."""
    return json.dumps(value, ensure_ascii=True).encode()
