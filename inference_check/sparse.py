"""Checkpoints of published shapes that take no room on the disk: headers, and holes for the weights.

For measuring time and memory at sizes that few disks hold; every weight reads as zero.

    7b    LLaMA 7B in Hugging Face layout, two safetensors shards
    65b   LLaMA 65B in Meta's layout, eight parts of 16,323,959,449 bytes (Touvron et al. 2023)
"""

import binascii
import collections
import io
import json
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .synthetic import META_LAYER, Shape, write_json

SHAPES = {
    "small": Shape(layers=2, width=256, heads=8, kv_heads=8, hidden=768, vocab=1024),
    "7b": Shape(32, 4096, 32, 32, 11008, 32000, 1e-6),
    "65b": Shape(80, 8192, 64, 64, 22016, 32000, 1e-5),
}
LLAMA_65B_PART = 16_323_959_449
_ALIGNMENT = 64
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")

Sizes = dict[str, tuple[int, ...]]


def make_sparse(folder: Path, name: str) -> None:
    """Write the checkpoint called ``name`` into ``folder``, which is made where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[name]
    if name == "65b":
        _write_meta(folder, shape, 8, LLAMA_65B_PART)
    else:
        _write_hf(folder, shape)


def _matrices(shape: Shape) -> Sizes:
    """Return every tensor by its Hugging Face name, in the order of the model."""
    d, f, v = shape.width, shape.hidden, shape.vocab
    in_layer: Sizes = {
        **dict.fromkeys((ours for ours, _, _ in META_LAYER), (d, d)),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
        "input_layernorm": (d,),
        "post_attention_layernorm": (d,),
    }
    sizes: Sizes = {"model.embed_tokens.weight": (v, d)}
    for layer in range(shape.layers):
        sizes |= {f"model.layers.{layer}.{n}.weight": size for n, size in in_layer.items()}
    return sizes | {"model.norm.weight": (d,), "lm_head.weight": (v, d)}


def _write_hf(folder: Path, shape: Shape, shards: int = 2) -> None:
    sizes = _matrices(shape)
    names = sorted(sizes)
    for shard in range(shards):
        members = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        header, place = {}, 0
        for name in members:
            end = place + 2 * torch.Size(sizes[name]).numel()
            header[name] = {"dtype": "F16", "shape": sizes[name], "data_offsets": [place, end]}
            place = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / f"model-{shard + 1:05d}-of-{shards:05d}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + place)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "vocab_size": shape.vocab,
    }
    write_json(folder / "config.json", config)


def _write_meta(folder: Path, shape: Shape, parts: int, size: int) -> None:
    """Write ``parts`` files of ``size`` bytes as torch.save would, weights left out."""
    stored: Sizes = {
        "tok_embeddings.weight": (shape.vocab, shape.width // parts),
        "norm.weight": (shape.width,),
        "output.weight": (shape.vocab // parts, shape.width),
    }
    whole = _matrices(shape)
    for layer in range(shape.layers):
        for ours, theirs, cut in META_LAYER:
            rows, *columns = whole[f"model.layers.{layer}.{ours}.weight"]
            if cut == 0:
                rows //= parts
            if cut == 1:
                columns = [columns[0] // parts]
            stored[f"layers.{layer}.{theirs}.weight"] = (rows, *columns)
    stored["rope.freqs"] = (shape.head_width // 2,)
    for part in range(parts):
        write_zip(folder / f"consolidated.{part:02d}.pth", stored, size)
    params = {
        "dim": shape.width,
        "multiple_of": 256,
        "n_heads": shape.heads,
        "n_layers": shape.layers,
        "norm_eps": shape.norm_eps,
        "vocab_size": -1,
    }
    write_json(folder / "params.json", params)


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        stride = torch.empty(self.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (
            self.storage,
            0,
            self.shape,
            stride,
            False,
            collections.OrderedDict(),
        )


class _Pickler(pickle.Pickler):
    """Names half-precision storages as torch.save does, without having any."""

    def persistent_id(self, obj: object) -> Any:
        if isinstance(obj, _Storage):
            return ("storage", torch.HalfStorage, obj.key, "cpu", obj.count)
        return None


def write_zip(path: Path, tensors: Sizes, size: int | None = None) -> None:
    """Write a ``.pth`` file of half-precision zeros, of ``size`` bytes if that is larger."""
    state = {
        name: _Tensor(_Storage(str(key), torch.Size(shape).numel()), shape)
        for key, (name, shape) in enumerate(tensors.items())
    }
    text = io.BytesIO()
    _Pickler(text, protocol=2).dump(state)
    records = [
        ("archive/data.pkl", text.getvalue()),
        ("archive/byteorder", b"little"),
        ("archive/version", b"3\n"),
    ]
    with path.open("wb") as file:
        directory = [_record(file, name, len(data), data) for name, data in records]
        for tensor in state.values():
            storage = tensor.storage
            directory.append(_record(file, f"archive/data/{storage.key}", 2 * storage.count))
        _end(file, directory, size)


def _record(
    file: BinaryIO, name: str, length: int, data: bytes = b""
) -> tuple[bytes, int, int, int]:
    """Write a local header and leave room for the data, from an aligned place on."""
    header, bare = file.tell(), name.encode()
    padding = -(header + _LOCAL.size + len(bare) + 4) % _ALIGNMENT
    extra = struct.pack("<2s H", b"FB", padding) + b"Z" * padding
    crc = binascii.crc32(data)
    fields = (45, 0, 0, 0, 0, crc, min(length, 0xFFFFFFFF), min(length, 0xFFFFFFFF))
    file.write(_LOCAL.pack(b"PK\x03\x04", *fields, len(bare), len(extra)) + bare + extra)
    file.write(data)
    file.seek(length - len(data), io.SEEK_CUR)
    return bare, header, length, crc


def _end(file: BinaryIO, records: Sequence[tuple[bytes, int, int, int]], size: int | None) -> None:
    """Write the directory and the records at the end (APPNOTE 6.3.9, 4.3.12 to 4.3.16)."""
    directory = b"".join(_central(*record) for record in records)
    count = len(records)
    ends = 56 + 20 + 22
    start = file.tell()
    if size is not None:
        start = max(start, size - len(directory) - ends)
    file.seek(start)
    file.write(directory)
    end64 = start + len(directory)
    file.write(
        struct.pack(
            "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), start
        )
    )
    file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, end64, 1))
    file.write(
        struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )


def _central(name: bytes, header: int, length: int, crc: int) -> bytes:
    wide = struct.pack("<2H3Q", 1, 24, length, length, header)
    fields = (45, 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(wide), 0, 0, 0, 0)
    return _CENTRAL.pack(b"PK\x01\x02", *fields, 0xFFFFFFFF) + name + wide
