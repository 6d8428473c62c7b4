"""Safetensors files that lie: 8 bytes of length, a JSON header, the tensors without a gap."""

import json
import struct
from typing import Any

from .cases import MIB, SHARD, Case, Make, Room, table

F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def file(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """Return a file whose header may be any value or any bytes, of any claimed length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes: Any) -> bytes:
    """Return a file of one tensor that would be good but for ``changes``."""
    return file({"a": F32 | changes})


def raw(shape: str = "[2,2]", offsets: str = "[0,16]", dtype: str = '"F32"') -> bytes:
    """Return a file of one tensor with these texts in its header, JSON or not."""
    text = f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'
    return file(text.encode())


def many(count: int, **changes: Any) -> bytes:
    """Return a file of ``count`` empty tensors."""
    empty = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} | changes)
    rows = ",".join(f'"t{number}":{empty}' for number in range(count))
    return file(f"{{{rows}}}".encode(), b"")


def listed(given: Any) -> Make:
    """The file lies under the name of an official shard."""
    return lambda room: room.put(SHARD, given() if callable(given) else given) and None


def other(given: Any) -> Make:
    """The file lies where the official shards were, under a name of its own."""
    return lambda room: room.instead("model.safetensors", given() if callable(given) else given)


LIES = {
    "empty": (b"", "it is empty"),
    "seven bytes": (b"\x10" + bytes(6), "too short"),
    "only a length": (struct.pack("<Q", 2), "does not fit|not JSON|neither"),
    "a length of 2^63": (file({"a": F32}, length=2**63), "more than the format allows"),
    "a length of 2^64 - 1": (file({"a": F32}, length=2**64 - 1), "more than the format allows"),
    "a length one too long": (file({"a": F32}, b"", length=1000), "does not fit"),
    "a length one too short": (file({"a": F32}, length=57), "not JSON"),
    "a length of zero": (file(b"", b"{" + bytes(7), length=0), "not JSON"),
    "the longest header allowed, not there": (file({}, length=100_000_000), "does not fit"),
    "cut off in its data": (file({"a": F32}, bytes(15)), "cut off"),
    "without its data": (file({"a": F32}, b""), "cut off"),
    "trailing bytes": (file({"a": F32}, bytes(17)), "follow the last tensor"),
    "a mebibyte of trailing bytes": (file({"a": F32}, bytes(MIB)), "follow the last tensor"),
    "two tensors on the same bytes": (file({"a": F32, "b": F32}), "overlaps"),
    "two that overlap by a byte": (
        file({"a": F32, "b": F32 | {"data_offsets": [15, 31]}}, bytes(31)),
        "overlaps",
    ),
    "a hole of one byte": (
        file({"a": F32, "b": F32 | {"data_offsets": [17, 33]}}, bytes(33)),
        "leaves a hole",
    ),
    "a hole before the first": (one(data_offsets=[1, 17]), "leaves a hole"),
    "offsets reversed": (one(data_offsets=[16, 0]), "does not fill"),
    "an offset of -1": (one(data_offsets=[-1, 15]), "offsets that no file can have"),
    "an offset of 2^63": (one(data_offsets=[2**63, 2**63 + 16]), "offsets that no file can have"),
    "offsets of 2^48": (one(data_offsets=[2**48 - 16, 2**48]), "leaves a hole"),
    "offsets as booleans": (one(shape=[], data_offsets=[False, True]), "offsets"),
    "offsets as floats": (one(data_offsets=[0.0, 16.0]), "offsets"),
    "offsets as text": (one(data_offsets=["0", "16"]), "offsets"),
    "one offset": (one(data_offsets=[16]), "offsets"),
    "three offsets": (one(data_offsets=[0, 8, 16]), "offsets"),
    "no offsets": (file({"a": {"dtype": "F32", "shape": [2, 2]}}), "not described"),
    "offsets in an object": (one(data_offsets={"0": 16}), "offsets"),
    "a dimension of -2": (one(shape=[-2, -2]), "shape"),
    "a dimension that is true": (one(shape=[True, 4]), "shape"),
    "a dimension as float": (one(shape=[4.0]), "shape"),
    "a dimension as 4e0": (raw(shape="[4e0]"), "shape"),
    "a dimension of 2^63": (one(shape=[2**63]), "shape"),
    "dimensions that overflow to four": (one(shape=[2**32, 2**32, 4]), "does not fill"),
    "a product of 2^768": (one(shape=[2**48] * 16), "does not fill"),
    "a rank of 17": (one(shape=[1] * 17), "shape"),
    "a rank of 10^5": (one(shape=[1] * 100_000), "shape"),
    "a null shape": (one(shape=None), "shape"),
    "a shape as text": (one(shape="4"), "shape"),
    "a dimension of 10^5 digits": (raw(shape=f"[{'9' * 100_000}]"), "digits"),
    "a dimension of 4,300 digits": (raw(shape=f"[{'9' * 4300}]"), "shape"),
    "the type F31": (one(dtype="F31"), "unknown type"),
    "a type in lower case": (one(dtype="f32"), "unknown type"),
    "a type that lies: F64": (one(dtype="F64"), "does not fill"),
    "a type that lies: BOOL": (one(dtype="BOOL"), "does not fill"),
    "a type that is null": (one(dtype=None), "unknown type"),
    "a type that is a list": (one(dtype=["F32"]), "unknown type"),
    "a type nested 900 deep": (raw(dtype="[" * 900 + "]" * 900), "unknown type"),
    "a type of a mebibyte": (one(dtype="F" * MIB), "unknown type"),
    "a type with a newline": (one(dtype="F32\nF32"), "unknown type"),
    "a fourth field": (one(extra=1), "not described"),
    "a tensor that is a number": (file({"a": 5}, b""), "not described"),
    "a tensor that is a list": (file({"a": ["F32", [2, 2], [0, 16]]}), "not described"),
    "a header that is a list": (file([1] * 8), "neither|not a JSON object"),
    "a header that is null": (file(b"null    "), "neither|not a JSON object"),
    "a tensor without a name": (file({"": F32}), "no name"),
    "a name of 5,000 letters": (file({"a" * 5000: F32}), "longer than"),
    "a name that is half a surrogate pair": (file(b'{"\\ud800":' + b"{}}"), "surrogate"),
    "a value that is half a surrogate pair": (raw(dtype='"\\udfff"'), "surrogate"),
    "a name twice": (
        file(b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}"),
        "repeats the key",
    ),
    "a name twice, once escaped": (file(b'{"a":{},"\\u0061":{}}', b""), "repeats the key"),
    "a field twice": (file(b'{"a":{"dtype":"F32","dtype":"F64"}}', b""), "repeats the key"),
    "nested 10^5 deep in lists": (file(b"[" * 100_000), "too deep"),
    "nested 10^5 deep in objects": (file(b'{"a":' * 100_000, b""), "too deep"),
    "metadata nested 10^5 deep": (file(b'{"__metadata__":' + b"[" * 100_000), "too deep"),
    "NaN": (file(b'{"a":NaN}', b""), "NaN"),
    "Infinity": (file(b'{"a":-Infinity}', b""), "Infinity"),
    "1e999": (raw(shape="[1e999]"), "shape"),
    "a comment": (file(b'{/* */"a":1}', b""), "not JSON"),
    "a comma too many": (file(b'{"a":1,}', b""), "not JSON"),
    "two objects": (file(b'{"a":1}{"a":1}', b""), "not JSON"),
    "NUL after the object": (file(b'{"a":1}\0', b""), "not JSON"),
    "bytes that are not UTF-8": (file(b'{"\xff\xfe":1}', b""), "UTF-8"),
    "UTF-8 of a surrogate": (file(b'{"\xed\xa0\x80":1}', b""), "UTF-8"),
    "an overlong slash": (file(b'{"\xc0\xaf":1}', b""), "UTF-8"),
    "UTF-16": (file('{"a":1}'.encode("utf-16-le"), b""), "not JSON|neither"),
    "a byte order mark": (file(b"\xef\xbb\xbf{}"), "not JSON|neither"),
    "a string without an end": (file(b'{"' + b"a" * MIB, b""), "not JSON"),
    "a control character in a name": (file(b'{"a\nb":{}}', b""), "not JSON"),
    "a web page": (b"<!DOCTYPE html><html><title>404</title></html>", "web page"),
    "an XML error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "LFS",
    ),
    "zeros": (bytes(MIB), "zeros"),
    "a gzip": (b"\x1f\x8b\x08" + bytes(100), "more than the format allows|does not fit|neither"),
    "three million items": (lambda: file(b"{" + b'"a":[],' * 3_000_000), "items"),
    "a million tensors": (lambda: many(1_000_000), "items|larger|lists more"),
    "more tensors than any model has": (lambda: many(201_000), "items|larger|lists more"),
    "a billion tensors claimed": (file(b"{", length=60_000_000_000), "more than the format"),
    "a header of 90 MiB": (
        lambda: file(b'{"a":"' + b"x" * (90 * MIB) + b'"}'),
        "larger|items|not described",
    ),
    "30 MiB of astral characters": (
        lambda: file(b'{"a":"' + b"\xf0\x9f\x98\x80" * (30 * MIB // 4) + b'"}'),
        "larger|not described",
    ),
    "objects of one key, to fill memory": (
        lambda: file(b"[" + b'{"a":{}},' * 600_000 + b"{}]"),
        "items|neither|not a JSON object",
    ),
    "30 MiB of short strings": (
        lambda: file(b'{"a":[' + b'"xy",' * (6 * MIB) + b'""]}'),
        "larger|items|not described",
    ),
    "30 MiB of digits": (
        lambda: file(b'{"a":[' + (b"9" * 4000 + b",") * (7 * 1024) + b"0]}"),
        "larger|items|not described",
    ),
    "30 MiB of escapes": (
        lambda: file(b'{"a":"' + b"\\u0041" * (5 * MIB) + b'"}'),
        "larger|not described",
    ),
    "30 MiB of spaces": (lambda: file(b"{" + b" " * (30 * MIB) + b"}"), "larger|follow"),
}

UNLISTED = {
    "cut off": (file({"a": F32}, bytes(15)), "cut off"),
    "an overlap": (file({"a": F32, "b": F32}), "overlaps"),
    "a name that is half a surrogate pair": (
        file(b'{"\\ud800":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'),
        "surrogate",
    ),
    "a pickle under this name": (b"\x80\x02cposix\nsystem\n.", "does not fit|more than"),
    "a zip bomb under this name": (b"PK\x03\x04" + bytes(60), "zip"),
}


def tensors_of_shape(count: int, width: int) -> Make:
    """Many small tensors with names that no checkpoint has."""

    def make(room: Room) -> None:
        row = {"dtype": "F16", "shape": [width]}
        header = {
            f"model.layers.{n}.x": row | {"data_offsets": [2 * width * n, 2 * width * (n + 1)]}
            for n in range(count)
        }
        room.instead("model.safetensors", file(header, bytes(2 * width * count)))

    return make


def sparse(size: int) -> Make:
    """One tensor of ``size`` bytes, none of which the disk holds."""

    def make(room: Room) -> None:
        header = {"lm_head.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
        room.instead("model.safetensors", file(header, b""))
        with (room.copy / "model.safetensors").open("r+b") as opened:
            opened.truncate(opened.seek(0, 2) + size)

    return make


def shifted(room: Room) -> None:
    """Put one byte in front of a good shard."""
    room.put(SHARD, b"x" + (room.copy / SHARD).read_bytes())


CASES = [
    *table("safetensors", LIES, listed, code="weights-refused"),
    *table("safetensors beside nothing", UNLISTED, other, code="weights-refused"),
    Case("safetensors: an offset of -0", listed(raw(offsets="[-0,16]")), "differs", "damaged"),
    Case("safetensors: shifted by a byte", shifted, "more than|does not fit", "weights-refused"),
    Case(
        "safetensors: 20,000 unknown tensors", tensors_of_shape(20_000, 1), "of", "weights-differ"
    ),
    Case("safetensors: a sparse tensor of 1 TiB", sparse(1 << 40), "of", "weights-differ"),
    Case("safetensors: a tensor of 2^47 bytes", sparse(1 << 43), "of", "weights-differ"),
]
