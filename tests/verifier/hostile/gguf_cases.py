"""GGUF files that lie: the reader's own table through the whole command, and enormous ones."""

import struct
from typing import Any

from tests.verifier.test_readers_gguf import HOSTILE, build, info, pair, text

from .cases import MIB, Case, Make, table

FILES = "model.gguf"


def put(given: Any) -> Make:
    """The file lies where the official shards were."""
    return lambda room: room.instead(FILES, given() if callable(given) else given)


def words(said: str) -> str:
    """Return what the reader's table expects as a regular expression."""
    return said.replace("(", r"\(").replace(")", r"\)")


ENORMOUS: dict[str, tuple[Any, str]] = {
    "two million empty texts": (
        lambda: build([pair("a", 9, struct.pack("<IQ", 8, 2 << 20) + bytes(16 * MIB))]),
        "hold no tensor",
    ),
    "sixteen thousand pairs": (
        lambda: build([pair(f"k{n}", 8, text("v" * 100)) for n in range(16_384)]),
        "hold no tensor",
    ),
}
MANY: dict[str, tuple[Any, str]] = {
    "fifty thousand tensors on one place": (
        lambda: build(infos=[info(f"t{n}") for n in range(50_000)], data=bytes(16)),
        "overlaps",
    ),
    "a text of 60 MiB that is cut off": (
        lambda: build([pair("a", 8, struct.pack("<Q", 60 * MIB) + bytes(50 * MIB))]),
        "more than the file has",
    ),
}

CASES = [
    *table(
        "gguf",
        {name: (content, words(said)) for name, (content, said) in HOSTILE.items()},
        put,
        code="weights-refused",
    ),
    *table("gguf", ENORMOUS, put, code="weights-not-compared"),
    *table("gguf", MANY, put, code="weights-refused"),
    Case("gguf: an empty file", put(b""), "it is empty", "weights-refused"),
]
