"""How a set of weight files names and lays out its tensors: told by names, config and metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import strict_json
from .errors import ManifestError, ReadError
from .fused import Fusion
from .layout_names import PAIRED_ARCHITECTURES, is_metas
from .readers import TensorEntry, open_source, read_gguf_metadata

MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class Dialect:
    """The layout (`hf`, `meta` or `gguf`), and whether rows of q and k lie in Meta's order."""

    layout: str
    paired: bool
    head_width: int | None
    fusion: Fusion


def dialect_of(
    root: Path, folder: str, entries: Sequence[TensorEntry], head_width: int | None
) -> Dialect:
    """Tell the dialect from the file's own metadata, the names of its tensors and the config."""
    if entries[0].path.lower().endswith(".gguf"):
        return _gguf_dialect(root, entries, head_width)
    configs = _configs(root, folder)
    heads, width = _heads(configs)
    rows = heads * width if heads and width else None
    named_as_metas = any(is_metas(entry.name) for entry in entries)
    if _is_internlm2(configs[1], entries):  # Meta's names, Hugging Face's order
        width = width or head_width
        return Dialect("hf", False, width, Fusion(rows, width, grouped=True))
    if named_as_metas and head_width is None:
        head_width = head_width_of(root, folder, entries)
    layout = "meta" if named_as_metas else "hf"
    return Dialect(layout, named_as_metas, head_width, Fusion(rows))


def _is_internlm2(config: Mapping[str, Any], entries: Sequence[TensorEntry]) -> bool:
    """Tell InternLM2 by its config, or by names that no other layout has together."""
    if config.get("model_type"):
        return bool(config["model_type"] == "internlm2")
    return any(
        entry.name.startswith("model.layers.") and entry.name.endswith("attention.wqkv.weight")
        for entry in entries
    )


def _gguf_dialect(root: Path, entries: Sequence[TensorEntry], official: int | None) -> Dialect:
    """Read architecture and heads from the first file that tells them: of parts, only one does."""
    metadata: Mapping[str, Any] = {}
    for path in sorted({entry.path for entry in entries}):
        found = read_gguf_metadata(root, path)
        if "general.architecture" in found:
            metadata = found
            break
    kind = metadata.get("general.architecture")
    heads = metadata.get(f"{kind}.attention.head_count")
    width: Any = metadata.get(f"{kind}.attention.key_length")
    if not width and _positive(heads) and _positive(metadata.get(f"{kind}.embedding_length")):
        width = metadata[f"{kind}.embedding_length"] // heads
    width = width if _positive(width) and width % 2 == 0 else official
    fusion = Fusion(
        heads * width if _positive(heads) and width else None, up_holds_gate=kind == "phi3"
    )
    paired = kind is None or kind in PAIRED_ARCHITECTURES
    return Dialect("gguf", paired, width, fusion)


def head_width_of(root: Path, folder: str, entries: Sequence[TensorEntry] = ()) -> int | None:
    """Return the width of a head as the config beside the weights, or ``rope.freqs``, tells it."""
    width = _heads(_configs(root, folder))[1]
    if width is not None:
        return width
    for entry in entries:
        if entry.name.endswith("rope.freqs") and len(entry.shape) == 1 and entry.shape[0]:
            return 2 * entry.shape[0]
    return None


def _configs(root: Path, folder: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    return read_config(root, f"{prefix}params.json"), read_config(root, f"{prefix}config.json")


def _heads(configs: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """Return the number of heads and the width of one, as params.json or config.json tells them."""
    for found, whole, heads in zip(
        configs, ("dim", "hidden_size"), ("n_heads", "num_attention_heads"), strict=True
    ):
        count: Any = found.get(heads)
        width: Any = found.get("head_dim")
        if not width and _positive(found.get(whole)) and _positive(count):
            width = found[whole] // count
        if _positive(width) and width % 2 == 0:
            return count if _positive(count) else None, int(width)
    return None, None


def read_config(root: Path, path: str) -> dict[str, Any]:
    """Return a small JSON object beside the weights, or nothing where it cannot be read."""
    try:
        with open_source(root, path) as source:
            if source.size > MAX_CONFIG:
                return {}
            found = strict_json.loads(source.read(0, source.size), path)
    except (ReadError, ManifestError):
        return {}
    return found if isinstance(found, dict) else {}


def _positive(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 32
