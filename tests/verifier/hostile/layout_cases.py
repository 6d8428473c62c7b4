"""What lies beside weights and says how to read them: indexes, configs, parts of a model."""

import json
from pathlib import Path
from typing import Any

from .cases import MIB, SECOND, SHARD, Case, Make, Room, table
from .safetensors_cases import F32, file


def index_says(text: Any) -> Make:
    """The index of the copy, and shards that differ, so that everything is looked at."""

    def make(room: Room) -> None:
        value = text() if callable(text) else text
        room.put("model.safetensors.index.json", value)

    return make


INDEXES = {
    "nested 10^5 deep": "[" * 100_000,
    "a key twice": '{"weight_map":{},"weight_map":{}}',
    "a shard in a folder above": json.dumps({"weight_map": {"a": "../../etc/passwd"}}),
    "a shard that is a list": json.dumps({"weight_map": {"a": ["x"]}}),
    "empty": "",
    "a null byte": "\0",
}


CONFIGS = {
    "config.json nested 10^5 deep": ("config.json", "[" * 100_000),
    "config.json that is a list": ("config.json", "[]"),
    "config.json of 2 MiB": ("config.json", '"' + "a" * 2 * MIB + '"'),
    "config.json of zero heads": ("config.json", '{"hidden_size":32,"num_attention_heads":0}'),
    "config.json of -1 heads": ("config.json", '{"hidden_size":32,"num_attention_heads":-1}'),
    "config.json of enormous heads": (
        "config.json",
        '{"hidden_size":' + "9" * 4000 + ',"num_attention_heads":1}',
    ),
    "config.json of NaN": ("config.json", '{"hidden_size":NaN}'),
}


def meta(params: str | bytes | None, change: Any = None) -> Make:
    """Meta's layout with another params.json, or none."""

    def make(room: Room) -> None:
        room.in_meta()
        (room.copy / "config.json").unlink()  # it would tell the width of a head too
        if params is None:
            (room.copy / "params.json").unlink()
        else:
            room.put("params.json", params)
        if change:
            change(room)

    return make


PARAMS: dict[str, tuple[Any, str]] = {
    "params.json that is empty": ("", "params.json"),
    "params.json that is missing": (None, "params.json"),
    "params.json nested 10^5 deep": ("[" * 100_000, "params.json"),
    "params.json that is a list": ("[1]", "params.json"),
    "params.json of zero heads": ('{"dim":32,"n_heads":0}', "params.json"),
    "params.json of -2 heads": ('{"dim":32,"n_heads":-2}', "params.json"),
    "params.json of true heads": ('{"dim":32,"n_heads":true}', "params.json"),
    "params.json of 10^400 heads": ('{"dim":32,"n_heads":1' + "0" * 400 + "}", "params.json"),
    "params.json of a float": ('{"dim":32.0,"n_heads":2}', "params.json"),
    "params.json of odd heads": ('{"dim":33,"n_heads":3}', "params.json"),
    "params.json of heads wider than rows": ('{"dim":4096,"n_heads":2}', "whole heads"),
    "params.json twice the same key": ('{"dim":32,"dim":32,"n_heads":2}', "params.json"),
    "params.json in UTF-16": ('{"dim":32,"n_heads":2}'.encode("utf-16"), "params.json"),
}


def without_tensors_json(made: Make) -> Make:
    """The official width of a head is not known either: only params.json could tell it."""

    def make(room: Room) -> None:
        made(room)
        path = room.copy / ".weighbridge" / "tensors.json"
        value = json.loads(path.read_text())
        value["head_width"] = None
        path.write_text(json.dumps(value))
        checkpoint = room.copy / "model.sig"
        assert checkpoint.exists()
        resign(room)

    return make


def resign(room: Room) -> None:
    """Sign the official files, and the side files as they are now."""
    import hashlib

    from verifier import oms

    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    side = room.copy / ".weighbridge"
    listed = [(f".weighbridge/{p.name}", digest(p)) for p in side.iterdir()]
    listed += [(p.name, digest(p)) for p in room.official.iterdir() if p.is_file()]
    resources = [oms.Resource(*pair) for pair in listed if pair[0] != "model.sig"]
    room.put("model.sig", oms.sign(resources, "test/tiny@1", room.signer.key))


def lose_a_part(room: Room) -> None:
    (room.copy / "consolidated.01.pth").unlink()


def mix_parts(room: Room) -> None:
    """The second part is the first one again, cut in half."""
    path = room.copy / "consolidated.01.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def third_part(room: Room) -> None:
    room.put("consolidated.02.pth", file({"norm.weight": F32}))


def two_shards_one_name(room: Room) -> None:
    room.without_weights()
    for name in (SHARD, SECOND):
        room.put(name, file({"model.norm.weight": F32}))


def many_folders_with_weights(room: Room) -> None:
    room.without_weights()
    for number in range(1000):
        room.put(f"d{number}/x.safetensors", file({f"t{number}": F32}))


CASES = [
    *table("index", {n: (t, "differs") for n, t in INDEXES.items()}, index_says, code="damaged"),
    *(
        Case(
            f"config: {name}",
            lambda room, at=at, text=text: room.put(at, text) and None,
            "differs",
            "damaged",
        )
        for name, (at, text) in CONFIGS.items()
    ),
    *table(
        "meta",
        PARAMS,
        lambda text: without_tensors_json(meta(text)),
        code="weights-refused",
    ),
    Case(
        "meta: a part that is missing",
        lambda r: lose_a_part(r) if r.in_meta() else None,
        "of",
        "weights-differ",
    ),
    Case(
        "meta: a part cut in half",
        lambda r: mix_parts(r) if r.in_meta() else None,
        "zip",
        "weights-refused",
    ),
    Case(
        "meta: a part too many",
        lambda r: third_part(r) if r.in_meta() else None,
        "part|shard",
        "weights-refused",
    ),
    Case("shards: one name in two", two_shards_one_name, "another shard", "weights-refused"),
    Case("shards: in a thousand folders", many_folders_with_weights, "of", "weights-differ"),
]
