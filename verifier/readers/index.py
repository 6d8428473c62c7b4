"""The Hugging Face index: which shard holds which tensor, by name only.

    {"metadata": {"total_size": …}, "weight_map": {"lm_head.weight": "model-00002-of-00002…", …}}

It carries no digests, and the shards' own headers win over it; it tells what is missing.
"""

from pathlib import Path

from .. import strict_json
from ..errors import ManifestError, ReadError
from .entries import MAX_TENSORS
from .source import open_source

MAX_INDEX = 64 << 20


def read(root: Path, path: str) -> dict[str, str]:
    """Return tensor name → shard name of one index file.

    Raises:
        ReadError: it is not an index, or names a shard outside its own folder.
    """
    with open_source(root, path) as source:
        if source.size > MAX_INDEX:
            raise ReadError(path, f"it is larger than {MAX_INDEX >> 20} MiB")
        try:
            index = strict_json.loads(source.read(0, source.size), "it", max_bytes=MAX_INDEX)
        except ManifestError as error:
            raise ReadError(path, str(error).removesuffix(".")) from None
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict) or len(placed) > MAX_TENSORS:
        raise ReadError(path, "it has no weight_map of tensors to shards")
    for name, shard in placed.items():
        if not isinstance(shard, str) or not shard or "/" in shard or "\0" in shard:
            raise ReadError(path, f"tensor {name[:80]!r} is placed in no file of this folder")
    return placed
