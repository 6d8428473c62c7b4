"""Digests of the leaves that a pass has read, and how they are handed to whoever asked for them.

One JSON object a line and file, so that the parent process need not read the files again:

    {"path": …, "identity": [device, inode, size, mtime_ns, ctime_ns], "kind": "blake3",
     "leaves": base64 of the concatenated digests}
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from verifier.digests import DIGEST_BYTES, leaf_count, leaf_root
from verifier.errors import ReadError
from verifier.walk import Identity

Hash = Callable[[memoryview], bytes]


class LeafDigests:
    """The digests of one kind of every file of a pass; threads may put them in any order."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.identities: dict[str, Identity] = {}
        self._hash = _hash_of(kind)
        self._digests: dict[str, bytearray] = {}
        self._known: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def begin(self, identities: Mapping[str, Identity]) -> None:
        """Make room for the leaves of these files."""
        self.identities = dict(identities)
        for path, identity in identities.items():
            count = leaf_count(identity.size)
            self._digests[path] = bytearray(count * DIGEST_BYTES)
            self._known[path] = bytearray(count)

    def take(self, path: str, leaf: int, data: memoryview) -> None:
        """Hash a leaf and keep its digest; of a leaf that was read twice, compare the two.

        Raises:
            ReadError: the leaf is not what it was when it was read before.
        """
        digest = self._hash(data)
        place = slice(leaf * DIGEST_BYTES, (leaf + 1) * DIGEST_BYTES)
        with self._lock:
            if not self._known[path][leaf]:
                self._known[path][leaf] = 1
                self._digests[path][place] = digest
            elif self._digests[path][place] != digest:
                raise ReadError(path, "it changed while it was being read")

    def complete(self) -> dict[str, bytes]:
        """Return the leaves of each file that was read to its end."""
        return {p: bytes(d) for p, d in self._digests.items() if all(self._known[p])}

    def roots(self) -> dict[str, str]:
        """Return the root over the leaves of each complete file, in hex."""
        return {path: leaf_root(leaves) for path, leaves in self.complete().items()}

    def write(self, file: Path) -> None:
        """Write a line for each complete file.

        Raises:
            OSError: the file cannot be written.
        """
        with file.open("w", encoding="utf-8") as out:
            for path, leaves in self.complete().items():
                found = self.identities[path]
                line = {
                    "path": path,
                    "identity": [
                        found.device,
                        found.inode,
                        found.size,
                        found.mtime_ns,
                        found.ctime_ns,
                    ],
                    "kind": self.kind,
                    "leaves": base64.b64encode(leaves).decode(),
                }
                out.write(json.dumps(line) + "\n")


def _hash_of(kind: str) -> Hash:
    if kind == "sha256":
        return lambda data: hashlib.sha256(data).digest()
    from blake3 import blake3

    return lambda data: bytes(blake3(data).digest())
