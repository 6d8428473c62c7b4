"""PyTorch's files, zip and legacy, without unpickling.

    zip      ROOT/data.pkl (a pickle), ROOT/data/KEY (a storage each), ROOT/byteorder, …   since 1.6
    legacy   five pickles in a row (magic, protocol, system, object, keys), then per key
             <i64 count> and the storage's bytes                                          before

Both pickles go through the one restricted reader in ``opcodes``.
"""

import struct
from typing import Any

from ..errors import ReadError
from . import opcodes, zipfiles
from .entries import (
    ITEM_BYTES,
    MAX_NAME,
    MAX_RANK,
    MAX_TENSORS,
    TensorEntry,
    bounded,
    check_spans,
    count_entries,
)
from .source import Source

MAX_PICKLE = 32 << 20
MAX_DEPTH = 100
MAX_NODES = 400_000
MAX_NAMES = 16 << 20
"""Characters of all names together: a name of a deep tensor repeats those of all around it."""
MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little") + b"."

Spans = dict[str, tuple[int, int]]
"""A storage's bytes in the file, by its key."""


def is_zip(start: bytes) -> bool:
    """Tell from its first bytes whether a file is a zip archive."""
    return start.startswith(b"PK\x03\x04")


def is_legacy(start: bytes) -> bool:
    """Tell from its first bytes whether a file is a pickle, as PyTorch wrote before 1.6."""
    return start.startswith(b"\x80")


def read_zip(source: Source) -> list[TensorEntry]:
    """Return the tensors of a zip file in the order of their places.

    Raises:
        ReadError: it is not a plain archive of tensors.
    """
    path = source.path
    entries = zipfiles.read_directory(source)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ReadError(path, "it is a zip archive, but not one that torch.save wrote")
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{root}byteorder")
    if order and source.read(order.start, min(order.end - order.start, 16)) != b"little":
        raise ReadError(path, "its numbers are big-endian, which is not supported")
    pickle = entries[pickles[0]]
    if pickle.end - pickle.start > MAX_PICKLE:
        raise ReadError(path, f"its pickle is larger than {MAX_PICKLE >> 20} MiB")
    tree, end = _run(path, source.read(pickle.start, pickle.end - pickle.start))
    if end != pickle.end - pickle.start:
        raise ReadError(path, "bytes follow its pickle")
    prefix = f"{root}data/"
    spans = {
        name.removeprefix(prefix): (entry.start, entry.end)
        for name, entry in entries.items()
        if name.startswith(prefix)
    }
    return _place(source, tree, spans)


def read_legacy(source: Source) -> list[TensorEntry]:
    """Return the tensors of a file from before PyTorch 1.6 in the order of their places.

    Raises:
        ReadError: it is not a plain sequence of pickles and storages.
    """
    path = source.path
    data = memoryview(source.read(0, min(source.size, MAX_PICKLE)))
    if not bytes(data[: len(_LEGACY_START)]) == _LEGACY_START:
        raise ReadError(path, "it is a pickle that torch.save did not write, and was not loaded")
    position = len(_LEGACY_START)
    protocol, position = _run(path, data, position)
    system, position = _run(path, data, position)
    if protocol != 1001 or not isinstance(system, dict) or not system.get("little_endian"):
        raise ReadError(path, "it was saved in a form of torch.save that is not supported")
    tree, position = _run(path, data, position)
    keys, position = _run(path, data, position)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ReadError(path, "its list of storages is not well-formed")
    if len(set(keys)) != len(keys) or len(keys) > MAX_TENSORS:
        raise ReadError(path, "its list of storages repeats a key or is too long")
    storages = {storage.key: storage for storage in _storages(path, tree)}
    spans: Spans = {}
    for key in keys:
        storage = storages.get(key)
        if storage is None:
            raise ReadError(path, "it holds a storage that no tensor uses")
        if position + 8 > source.size:
            raise ReadError(path, "it is cut off; download it again")
        (count,) = struct.unpack("<q", source.read(position, 8))
        if count != storage.count:
            raise ReadError(path, f"storage {key[:40]!r} has two sizes")
        start = position + 8
        position = start + count * (ITEM_BYTES[storage.dtype] if storage.dtype else 1)
        spans[key] = (start, position)
    if position != source.size:
        fault = "is cut off" if position > source.size else "has bytes after its last storage"
        raise ReadError(path, f"it {fault}; download it again")
    return _place(source, tree, spans)


def _run(path: str, data: bytes | memoryview, start: int = 0) -> tuple[Any, int]:
    try:
        return opcodes.run(data, start)
    except opcodes.Refused as refused:
        raise ReadError(path, str(refused)) from None


def _views(path: str, tree: Any) -> list[tuple[str, opcodes.View]]:
    """Return the named tensors in nested dictionaries and lists.

    The memo of a pickle can make a small file describe an enormous or endless tree, so depth and
    the number of steps are bounded.
    """
    found: list[tuple[str, opcodes.View]] = []
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    nodes = characters = 0
    while pending:
        name, node, depth = pending.pop()
        if isinstance(node, opcodes.View):
            if len(found) == MAX_TENSORS or not name or len(name) > MAX_NAME:
                raise ReadError(path, "a tensor has no usable name, or there are too many")
            found.append((name, node))
            continue
        if not isinstance(node, dict | list | tuple):
            raise ReadError(path, "it holds something other than a dictionary of tensors")
        nodes += len(node)
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, dict | list | tuple | opcodes.View):
                inner = f"{name}.{key}"[-MAX_NAME - 1 :] if name else str(key)
                characters += len(inner)
                pending.append((inner, value, depth + 1))
            if nodes > MAX_NODES or characters > MAX_NAMES or depth == MAX_DEPTH:
                raise ReadError(path, "its pickle describes more than it could hold")
    return found


def _storages(path: str, tree: Any) -> list[opcodes.Storage]:
    return [view.storage for _, view in _views(path, tree)]


def _place(source: Source, tree: Any, spans: Spans) -> list[TensorEntry]:
    """Turn the views into places in the file, each checked against its storage."""
    path = source.path
    entries = [_entry(path, name, view, spans) for name, view in _views(path, tree)]
    if len({entry.name for entry in entries}) != len(entries):
        raise ReadError(path, "two of its tensors have one name")
    check_spans(path, entries, source.size)
    return sorted(entries, key=lambda entry: (entry.start, entry.end, entry.name))


def _entry(path: str, name: str, view: opcodes.View, spans: Spans) -> TensorEntry:
    shown = repr(name[:80])
    storage, item = view.storage, ITEM_BYTES[view.dtype]
    if storage.key not in spans:
        raise ReadError(path, f"tensor {shown} refers to a storage that is not there")
    start, end = spans[storage.key]
    if end - start != storage.count * (ITEM_BYTES[storage.dtype] if storage.dtype else 1):
        raise ReadError(path, f"the storage of tensor {shown} has another size than it claims")
    numbers = (*view.shape, *view.stride, view.offset)
    if len(view.shape) != len(view.stride) or len(view.shape) > MAX_RANK:
        raise ReadError(path, f"tensor {shown} has a shape that no tensor can have")
    if not all(map(bounded, numbers)):
        raise ReadError(path, f"tensor {shown} has sizes that no tensor can have")
    count = count_entries(view.shape)
    first = start + view.offset * item
    if first + count * item > end:
        raise ReadError(path, f"tensor {shown} reaches beyond its storage")
    if count > 1 and not _is_contiguous(view):
        raise ReadError(path, f"tensor {shown} does not lie row by row; save it with .contiguous()")
    return TensorEntry(name, view.dtype, view.shape, path, first, first + count * item)


def _is_contiguous(view: opcodes.View) -> bool:
    step = 1
    for size, stride in reversed(tuple(zip(view.shape, view.stride, strict=True))):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
