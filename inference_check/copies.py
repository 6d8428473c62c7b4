"""Open a copy for running: find its weights and config, and hold each to the other.

Only headers are read here. Every shape is compared with the config before anything is allocated.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verifier.errors import ReadError, VerifierError
from verifier.gguf_blocks import can_decode
from verifier.layouts import EMBEDDING, HEAD, Arranged, LogicalTensor, arrange
from verifier.readers import (
    TensorEntry,
    index,
    is_weight_file,
    open_source,
    read_gguf_metadata,
    read_tensors,
)
from verifier.walk import walk

from .config import MAX_HIDDEN, MAX_VOCAB, MAX_WIDTH, ModelConfig, find_config, from_gguf
from .errors import NotRun, WrongModel

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_GATE = "model.layers.0.mlp.gate_proj.weight"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that can be run: its config, completed from the tensors, and where they lie.

    ``files`` are all its weight files by name, with their sizes: also those that hold no tensor of
    the model, whose bytes are only hashed.
    """

    root: Path
    config: ModelConfig
    tensors: dict[str, LogicalTensor]
    files: dict[str, int]

    @property
    def paths(self) -> set[str]:
        """Files that hold the model's tensors."""
        return set().union(*(tensor.paths for tensor in self.tensors.values()))


def open_copy(root: Path, stand_in: Path | None = None) -> Copy:
    """Return the model in ``root``; ``stand_in`` is a folder whose config serves if it has none.

    Raises:
        NotRun: nothing here can be run: no weights, no config, unsupported, unreadable.
        WrongModel: the tensors are not those that the config describes.
    """
    if root.is_file():
        raise NotRun("a single file cannot be run; give the checkpoint's folder")
    entries, problems, files = _headers(root)
    others = [entry for entry in entries if not is_gguf(entry.path)]
    entries = others or entries  # a quantized copy beside the weights is hashed, not run
    folders = {entry.path.rpartition("/")[0] for entry in entries}
    if not entries:
        raise NotRun(str(problems[0]) if problems else "there is no file with tensors in it")
    if len(folders) > 1:
        raise NotRun("weights lie in several folders; give one of them")
    folder = folders.pop()
    config = find_config(root, folder, stand_in) if others else _gguf_config(root, entries)
    sets, unarranged = arrange(root, entries, config.head_width)
    problems += unarranged
    if not sets:
        raise NotRun(str(problems[0]))
    chosen = min(sets, key=lambda found: (not found.files[0].endswith(".safetensors"), found.files))
    copy = _checked(root, config, chosen, problems)
    return replace(copy, files=files)


def is_gguf(path: str) -> bool:
    """Tell a GGUF file by its name."""
    return path.lower().endswith(".gguf")


def _gguf_config(root: Path, entries: Iterable[TensorEntry]) -> ModelConfig:
    """Return what the one model in these GGUF files says of itself."""
    metadata: dict[str, Any] = {}
    for path in sorted({entry.path for entry in entries}):
        found = read_gguf_metadata(root, path)
        if "general.architecture" in found and "general.architecture" in metadata:
            raise NotRun("several GGUF models lie here; give a folder with one of them")
        metadata |= found
    factors: tuple[float, ...] = ()
    for entry in entries:
        if entry.name == "rope_freqs.weight" and entry.dtype == "F32" and entry.count < MAX_WIDTH:
            with open_source(root, entry.path) as source:
                data = source.read(entry.start, entry.end - entry.start)
            factors = struct.unpack(f"<{entry.count}f", data)
    return from_gguf(metadata, factors)


def _headers(root: Path) -> tuple[list[TensorEntry], list[ReadError], dict[str, int]]:
    """Return the tensors, what could not be read, and the files that can be, with their sizes."""
    entries: list[TensorEntry] = []
    problems: list[ReadError] = []
    files: dict[str, int] = {}
    try:
        listing = walk(root)
    except VerifierError as error:
        raise NotRun(str(error).removesuffix(".")) from None
    for path in sorted(filter(is_weight_file, listing.files)):
        if path.startswith(".weighbridge/"):
            continue
        try:
            with open_source(root, path) as source:
                files[path] = source.size
            entries += read_tensors(root, path)
        except ReadError as error:
            problems.append(error)
    return entries, problems, files


def _checked(
    root: Path, config: ModelConfig, found: Arranged, problems: Iterable[ReadError]
) -> Copy:
    from .model import shapes

    tensors = {tensor.name: tensor for tensor in found.tensors}
    config = _completed(config, tensors)
    expected = shapes(config)
    missing = sorted(expected.keys() - tensors.keys())
    for problem in problems:
        if missing:
            raise NotRun(str(problem))
    if missing:
        _refuse_incomplete(root, found)
        raise WrongModel(f"{len(missing)} tensors are missing, the first is {missing[0]}")
    extra = sorted(tensors.keys() - expected.keys() - {HEAD})
    if extra:
        raise WrongModel(f"its config knows no tensor {extra[0][:80]}")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise WrongModel(f"{name} is {list(tensor.shape)}, and its config says {list(shape)}")
        if tensor.dtype not in FLOATS and not can_decode(tensor.dtype):
            raise NotRun(f"unsupported type of tensor {name}: {tensor.dtype}")
        if len(shape) == 1 and (len(tensor.parts) > 1 or tensor.pair_width is not None):
            raise NotRun(f"unsupported layout of tensor {name}")
        if any(part.entry.count == 0 for part in tensor.parts):
            raise WrongModel(f"a part of {name} is empty")
    return Copy(root, config, {name: tensors[name] for name in expected}, {})


def _refuse_incomplete(root: Path, found: Arranged) -> None:
    """Raise NotRun if the copy's own index names a shard that is not there."""
    prefix = f"{found.folder}/" if found.folder else ""
    try:
        placed = index.read(root, f"{prefix}model.safetensors.index.json")
    except ReadError:
        return
    absent = sorted({shard for shard in placed.values() if prefix + shard not in found.files})
    if absent:
        raise NotRun(f"the copy is incomplete: {absent[0]} is missing")


def _completed(config: ModelConfig, tensors: dict[str, LogicalTensor]) -> ModelConfig:
    """Fill in what only the tensors tell, within the same bounds."""
    hidden = config.hidden or _rows(tensors, _GATE, MAX_HIDDEN)
    vocab = config.vocab or _rows(tensors, HEAD if HEAD in tensors else EMBEDDING, MAX_VOCAB)
    tied = HEAD not in tensors if config.tied is None else config.tied
    return replace(config, hidden=hidden, vocab=vocab, tied=tied)


def _rows(tensors: dict[str, LogicalTensor], name: str, most: int) -> int:
    tensor = tensors.get(name)
    if tensor is None or len(tensor.shape) != 2 or not 1 <= tensor.shape[0] <= most:
        raise WrongModel(f"{name} is missing or has no usable shape")
    return tensor.shape[0]
