"""Pickles as ``torch.save`` writes them, by hand, so that every argument in them can lie."""

import struct
from typing import Any

START = b"\x80\x02"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    """BINUNICODE."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def whole(value: int) -> bytes:
    """LONG1, of nine bytes."""
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: Any) -> bytes:
    """A tuple of numbers; bytes are instructions of their own."""
    if isinstance(values, bytes):
        return values
    return b"(" + b"".join(v if isinstance(v, bytes) else whole(v) for v in values) + b"t"


def storage(kind: str = "torch\nFloatStorage", key: str = "0", count: Any = 4) -> bytes:
    """A persistent id."""
    number = count if isinstance(count, bytes) else whole(count)
    return (
        b"("
        + text("storage")
        + b"c"
        + kind.encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + (number + b"tQ")
    )


def tensor(
    *,
    kind: str = "torch\nFloatStorage",
    key: str = "0",
    count: Any = 4,
    offset: Any = 0,
    shape: Any = (2, 2),
    stride: Any = (2, 1),
    tail: bytes = b"\x89" + ORDERED,
) -> bytes:
    """A tensor of four floats, or one that says otherwise."""
    start = offset if isinstance(offset, bytes) else whole(offset)
    return (
        REBUILD + b"(" + storage(kind, key, count) + start + numbers(shape) + numbers(stride)
    ) + (tail + b"tR")


def state(**tensors: bytes) -> bytes:
    """A pickle of a dictionary."""
    return START + b"}(" + b"".join(text(name) + made for name, made in tensors.items()) + b"u."


def running(command: str, *, protocol: int = 2) -> bytes:
    """A pickle that runs a shell command wherever it is unpickled."""
    asked = text(command) if protocol else b"V" + command.encode() + b"\n"
    return (START if protocol else b"") + b"cposix\nsystem\n" + b"(" + asked + b"tR."
