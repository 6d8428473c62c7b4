"""Side files, signed and not, and sketches of the portal that are not what they should be."""

import base64
import json
import os
from typing import Any

from .bundle_cases import Change, drop, set_at
from .cases import MIB, SECOND, SHARD, Case, Make, Room, table


def side(name: str, change: Any) -> Make:
    """A side file after ``change`` (of its JSON, or the bytes it is to have), signed again."""

    def make(room: Room) -> None:
        path = room.copy / ".weighbridge" / name
        if isinstance(change, bytes):
            path.write_bytes(change)
        elif callable(change):
            value = json.loads(path.read_text())
            replaced = change(value)
            path.write_text(json.dumps(value if replaced is None else replaced))
        room.sign_again()

    return make


def checkpoint(change: Any) -> Make:
    return side("checkpoint.json", change)


def of_a_file(key: str, value: Any) -> Change:
    """Change a field of one file in checkpoint.json."""
    return set_at("files", SHARD, key, value=value)


CHECKPOINTS: dict[str, tuple[Any, str]] = {
    "empty": (b"", "not JSON"),
    "a list": (b"[]", "form that this version"),
    "nested 10^5 deep": (b"[" * 100_000, "too deep"),
    "a key twice": (b'{"schema":1,"schema":1}', "repeats the key"),
    "schema 2": (set_at("schema", value=2), "form that this version"),
    "schema true": (set_at("schema", value=True), "form|missing|wrong|differ"),
    "no files": (drop("files"), "files"),
    "files that are a list": (set_at("files", value=[]), "files"),
    "one file fewer": (drop("files", SHARD), "does not describe"),
    "one file more": (set_at("files", "x", value={}), "does not describe"),
    "a file that is null": (set_at("files", SHARD, value=None), SHARD),
    "a size of -1": (of_a_file("size", -1), "size"),
    "a size of 2^63": (of_a_file("size", 2**63), "size"),
    "a size that is true": (of_a_file("size", True), "size"),
    "a size as float": (of_a_file("size", 1.0), "size"),
    "a size that does not fit the leaves": (of_a_file("size", 5 << 20), "every leaf"),
    "a leaf root of another file": (of_a_file("leaf_sha256", "0" * 64), "contradicts"),
    "a leaf root in capitals": (of_a_file("leaf_blake3", "A" * 64), "lowercase hex"),
    "no leaf root": (drop("files", SHARD, "leaf_sha256"), "leaf_sha256"),
    "a torrent root of 10 digits": (of_a_file("bt2_root", "0" * 10), "bt2_root"),
    "a git digest that is a list": (of_a_file("git_sha1", []), "git_sha1"),
    "leaves of 1 byte": (set_at("leaf_size", value=1), "leaves that are not"),
    "leaves of 0 bytes": (set_at("leaf_size", value=0), "leaves that are not"),
    "revision 0": (set_at("revision", value=0), "revision"),
    "revision true": (set_at("revision", value=True), "revision"),
    "revision 1.5": (set_at("revision", value=1.5), "revision"),
    "a previous that is no digest": (set_at("previous", value="x"), "previous"),
    "a name that is a number": (set_at("checkpoint", value=7), "checkpoint"),
    "no issued": (drop("issued"), "issued"),
    "a licence that is a list": (set_at("license", value=[]), "license"),
}


TENSORS: dict[str, tuple[Any, str]] = {
    "empty": (b"", "not JSON"),
    "a list": (b"[]", "form that this version"),
    "nested 10^5 deep": (b"[" * 100_000, "too deep"),
    "schema 2": (set_at("schema", value=2), "form that this version"),
    "rows that are an object": (set_at("tensors", value={}), "row|form"),
    "no rows": (drop("tensors"), "row|form"),
    "a row that is null": (set_at("tensors", 0, value=None), "row"),
    "a row without a name": (drop("tensors", 0, "name"), "row"),
    "a row without values": (drop("tensors", 0, "values"), "row"),
    "values that are numbers": (set_at("tensors", 0, "values", "exact", value=1), "row"),
    "a shape of text": (set_at("tensors", 0, "shape", value="2,2"), "row"),
    "a shape of -1": (set_at("tensors", 0, "shape", value=[-1]), "row"),
    "a shape of lists": (set_at("tensors", 0, "shape", value=[[[[]]]]), "row"),
    "a place that is text": (set_at("tensors", 0, "place", value="x"), "row"),
    "a place without a file": (
        set_at("tensors", 0, "place", value=[{"start": 0, "end": 1}]),
        "row",
    ),
    "a place that starts as text": (set_at("tensors", 0, "place", 0, "start", value="0"), "row"),
    "a place that ends at -1": (set_at("tensors", 0, "place", 0, "end", value=-1), "row"),
    "a row twice": (lambda found: found["tensors"].append(found["tensors"][0]), "two rows"),
    "a name of half a surrogate pair": (set_at("tensors", 0, "name", value="\ud800"), "surrogate"),
}


def damaged_with(change: Any) -> Make:
    """tensors.json after ``change``, and a shard whose header is gone: both are looked at."""

    def make(room: Room) -> None:
        side("tensors.json", change)(room)
        room.put(SHARD, b"\xff" * (room.copy / SHARD).stat().st_size)

    return make


def unlike_signed(name: str, data: bytes | None) -> Make:
    """A side file that is not the one that was signed, or none."""

    def make(room: Room) -> None:
        path = room.copy / ".weighbridge" / name
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return make


def side_link(name: str, target: str) -> Make:
    def make(room: Room) -> None:
        path = room.copy / ".weighbridge" / name
        path.unlink()
        path.symlink_to(target)

    return make


def side_pipe(room: Room) -> None:
    path = room.copy / ".weighbridge" / "leaves.b3"
    path.unlink()
    os.mkfifo(path)


def sparse_side(room: Room) -> None:
    with (room.copy / ".weighbridge" / "tensors.json").open("r+b") as file:
        file.truncate(1 << 40)


def large_side_files(room: Room) -> None:
    """Signed, 40 MiB each: two that are known, and some that nobody knows."""
    for name in ("tensors.json", "reference.json", "1.bin", "2.bin", "3.bin"):
        with (room.copy / ".weighbridge" / name).open("wb") as file:
            file.truncate(40 * MIB)
    room.sign_again()


def sketched(given: Any) -> Make:
    """The bytes or the value are the sketch; a tensor differs, so that it is used."""

    def make(room: Room) -> list[object]:
        value = given() if callable(given) else given
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        path = room.copy / SECOND
        spoiled = bytearray(path.read_bytes())
        spoiled[-1] ^= 64
        path.write_bytes(spoiled)
        return ["--sketch", room.give("sketch.json", data)]

    return make


SEED = "00" * 32


TENSOR = {
    "samples": base64.b64encode(bytes(4096)).decode(),
    "simhash": base64.b64encode(bytes(128)).decode(),
}


def sketch(**changes: Any) -> dict[str, Any]:
    """Return a sketch of every tensor of the tiny checkpoint after ``changes`` of each."""
    names = ["lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"]
    layer = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    layer += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm")
    names += [f"model.layers.0.{n}.weight" for n in (*layer, "post_attention_layernorm")]
    return {"schema": 1, "seed": SEED, "tensors": dict.fromkeys(names, TENSOR | changes)}


SKETCHES = {
    "empty": (b"", "not JSON"),
    "a list": ([], "not a sketch"),
    "nested 10^5 deep": (b"[" * 100_000, "too deep"),
    "no seed": ({"schema": 1, "tensors": {}}, "not well-formed"),
    "a seed that is no hex": ({"schema": 1, "seed": "xyz", "tensors": {}}, "not well-formed"),
    "a seed that is a number": ({"schema": 1, "seed": 7, "tensors": {}}, "not well-formed"),
    "tensors that are a list": ({"schema": 1, "seed": SEED, "tensors": []}, "not well-formed"),
    "no tensors": ({"schema": 1, "seed": SEED}, "not well-formed"),
    "a tensor that is text": (
        {"schema": 1, "seed": SEED, "tensors": dict.fromkeys(sketch()["tensors"], "x")},
        "not well-formed",
    ),
    "samples that are no base64": (sketch(samples="!"), "not well-formed"),
    "samples of a mebibyte": (sketch(samples="A" * MIB), "not well-formed"),
    "samples of three bytes": (sketch(samples="AAAA"), "not well-formed"),
    "samples that are a list": (sketch(samples=[0]), "not well-formed"),
    "a simhash of one byte": (sketch(simhash="AA=="), "not well-formed"),
    "60 MiB": (lambda: b'"' + b"a" * 60 * MIB + b'"', "larger than"),
    "40 MiB of text": (lambda: b'"' + b"a" * 40 * MIB + b'"', "not a sketch"),
    "a key twice": (b'{"seed":"","seed":""}', "repeats the key"),
}


def special_sketch(kind: str) -> Make:
    def make(room: Room) -> list[object]:
        path = room.aside / "sketch.json"
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return ["--sketch", path, "--checks", "weights"]

    return make


BROKEN: dict[str, Any] = {"status": 2}

CASES = [
    *table("checkpoint.json", CHECKPOINTS, checkpoint, **BROKEN),
    *table("tensors.json", TENSORS, damaged_with, **BROKEN),
    *table("sketch", SKETCHES, sketched, **BROKEN),
    *table(
        "sketch",
        {
            "that is a pipe": ("pipe", "not a regular file"),
            "that is an endless device": ("zero", "not a regular file"),
        },
        special_sketch,
        **BROKEN,
    ),
    Case("leaves: missing", unlike_signed("leaves.b3", None), "not there", "side-file-missing", 0),
    Case("leaves: other bytes", unlike_signed("leaves.b3", b"x"), "signed", "side-file-differs", 0),
    Case("leaves: a pipe", side_pipe, "not a regular file", "side-file-differs", 0),
    Case(
        "leaves: an endless device",
        side_link("leaves.bin", "/dev/zero"),
        "not a regular file",
        "side-file-differs",
        0,
    ),
    Case("leaves: signed, cut off", side("leaves.b3", bytes(32)), "every leaf", status=2),
    Case(
        "leaves: signed, of zeros", side("leaves.b3", bytes(6 * 32)), "leaf|contradicts", status=2
    ),
    Case("tensors.json: a sparse tebibyte", sparse_side, "larger than", "side-file-differs", 0),
    Case(
        "checkpoint.json: 50 MiB",
        checkpoint(lambda found: "x" * 50 * MIB),
        "larger than 48 MiB",
        "side-file-differs",
        0,
    ),
    Case("side files: 200 MiB", large_side_files, "64 MiB together", "side-file-differs", 0),
]
