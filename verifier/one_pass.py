"""Digests and inference from one pass: the inference check hashes what it reads, and says so.

Where inference is asked for and can be run, each byte of the weight files is read once in all: the
check goes first, and the leaves that its process hashed are taken as ours. Whatever it could not
hash is hashed as always.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import inference_run
from .digests import DIGEST_BYTES, leaf_count
from .errors import ManifestError
from .files_check import Hasher
from .inference_run import InferenceOptions
from .manifest import REFERENCE, Manifest, published_configs
from .progress import Progress
from .readers import is_weight_file
from .strict_json import loads
from .walk import Identity, Listing


@dataclass(frozen=True, slots=True)
class HashedFile:
    """The leaves of one file, of one kind, as it was when they were read."""

    identity: Identity
    kind: str
    leaves: bytes


def run_first(
    listing: Listing,
    found: Manifest,
    hasher: Hasher,
    options: InferenceOptions,
    progress: Progress,
) -> dict[str, Any] | None:
    """Run the inference check before the files are hashed, and let ``hasher`` know what it read.

    Return its answer, or None where the files must be looked at first: some are missing or have
    no signed leaves of one kind, whole digests are asked for, or a journal, which this pass has not.
    """
    reference = found.side_file(REFERENCE)
    weights = {name: file for name, file in listing.files.items() if is_weight_file(name)}
    if reference is None or not weights or found.files.keys() - listing.files:
        return None
    if hasher.whole or hasher.journal is not None:
        return None
    lists = {
        entry.leaf_list(hasher.kinds) for name, entry in found.files.items() if is_weight_file(name)
    }
    kinds = {leaves.kind if leaves else None for leaves in lists}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        return None
    answer, hashed = inference_run.run_hashing(
        listing.root,
        reference,
        published_configs(found),
        sum(file.size for file in weights.values()),
        options,
        progress,
        kind,
    )
    sizes = {entry.size for entry in found.files.values()}
    for line in hashed:
        for name, file in understand(line).items():
            entry = found.files.get(name)
            if entry and name in weights and weights[name].identity == file.identity:
                hasher.adopt(hasher.job(weights[name], entry, sizes), file.kind, file.leaves)
    return answer


def understand(line: bytes) -> Mapping[str, HashedFile]:
    """Return the file that a line of the check tells of; nothing where it makes no sense."""
    try:
        content = loads(line, "a line of the inference check", max_bytes=len(line))
        path, kind = content["path"], content["kind"]
        numbers = content["identity"]
        if not isinstance(path, str) or not all(type(n) is int and n >= 0 for n in numbers):
            return {}
        identity = Identity(*numbers)
        leaves = base64.b64decode(content["leaves"], validate=True)
    except (ManifestError, KeyError, TypeError, ValueError, binascii.Error):
        return {}
    if len(leaves) != leaf_count(identity.size) * DIGEST_BYTES:
        return {}
    return {path: HashedFile(identity, str(kind), leaves)}
