"""The files of a checkpoint as the Hub's clients list them: as git objects.

A file is either a plain blob, named by git's SHA-1, or kept by Git LFS, named by its SHA-256 beside
the SHA-1 of the pointer that stands for it (git-lfs, docs/spec.md). What is large or holds weights
is LFS, as on the Hub; so is whatever the manifest gives no SHA-1 of.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Lock
from typing import Any

from django.db.models import Q

from portal.catalog.models import Checkpoint, Shard, ShardQuerySet
from portal.storage.stores import StoreError, store
from verifier import strict_json
from verifier.errors import ManifestError
from verifier.manifest import CHECKPOINT, MAX_SIDE_BYTES

PLAIN_SUFFIXES = (".json", ".jinja", ".md", ".py", ".txt", ".yaml")
PLAIN_AT_MOST = 10_000_000  # bytes
KEPT = 64  # listings


@dataclass(frozen=True, slots=True)
class Entry:
    """One file; ``git_sha1`` is empty where it is kept by Git LFS."""

    path: str
    size: int
    sha256: str
    git_sha1: str
    is_manifest: bool

    @property
    def etag(self) -> str:
        """What a client names its copy by."""
        return self.git_sha1 or self.sha256

    def as_json(self) -> dict[str, Any]:
        """Return what the clients read of a file."""
        said = {"type": "file", "path": self.path, "size": self.size, "oid": self.git_sha1}
        if self.git_sha1:
            return said
        pointer = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {self.size}\n"
        ).encode()
        lfs = {"oid": self.sha256, "size": self.size, "pointerSize": len(pointer)}
        return said | {"oid": _git_sha1("blob", pointer), "lfs": lfs}


def _git_sha1(kind: str, content: bytes) -> str:
    """Return the name of a git object."""
    # git names things by SHA-1; what is trusted is the signed SHA-256
    digest = hashlib.sha1(f"{kind} {len(content)}\0".encode(), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class Listing:
    """All files by path, in the order of their paths."""

    entries: Mapping[str, Entry]

    @cached_property
    def below(self) -> dict[str, list[dict[str, Any]]]:
        """What lies directly in each folder, as the clients read it; the top is the empty name."""
        found: dict[str, list[dict[str, Any]]] = {"": []}
        for entry in self.entries.values():
            folders = entry.path.split("/")[:-1]
            for depth, _ in enumerate(folders):
                name = "/".join(folders[: depth + 1])
                if name not in found:
                    found[name] = []
                    oid = _git_sha1("tree", name.encode())
                    row = {"type": "directory", "path": name, "size": 0, "oid": oid}
                    found["/".join(folders[:depth])].append(row)
            found["/".join(folders)].append(entry.as_json())
        return found

    def tree(self, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
        """Return what lies in ``folder``, or anywhere below it, in a fixed order.

        Raises:
            KeyError: there is no such folder.
        """
        return list(self._walk(folder)) if recursive else self.below[folder]

    def _walk(self, folder: str) -> Iterator[dict[str, Any]]:
        for row in self.below[folder]:
            yield row
            if row["type"] == "directory":
                yield from self._walk(row["path"])


_kept: OrderedDict[tuple[int, str], Listing] = OrderedDict()
_lock = Lock()


def listing_of(checkpoint: Checkpoint, commit: str, replaced_at: datetime | None) -> Listing:
    """Return the files of ``checkpoint`` as signed by the manifest with this ``commit`` id.

    What a manifest says never changes, so that its listing is kept in memory.

    Raises:
        StoreError: the manifest cannot be read from the store.
    """
    key = (checkpoint.pk, commit)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = _read(as_of(checkpoint.shards.all(), replaced_at))
    with _lock:
        _kept[key] = made
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return made


def forget() -> None:
    """Forget every listing; tests undo what they wrote."""
    _kept.clear()


def as_of(files: ShardQuerySet, replaced_at: datetime | None) -> dict[str, Shard]:
    """Return those of ``files`` by path that were there until ``replaced_at``, or are there now."""
    if replaced_at is None:
        return {shard.path: shard for shard in files.current()}
    then = files.filter(Q(replaced_at=None) | Q(replaced_at__gte=replaced_at))
    shards: dict[str, Shard] = {}
    for shard in then:
        known = shards.get(shard.path)
        if known is None or _ended(shard) < _ended(known):
            shards[shard.path] = shard
    return shards


def _ended(shard: Shard) -> float:
    return shard.replaced_at.timestamp() if shard.replaced_at else float("inf")


def _read(shards: Mapping[str, Shard]) -> Listing:
    names = _git_names(shards.get(CHECKPOINT))
    entries = {}
    for path, shard in sorted(shards.items()):
        plain = shard.size < PLAIN_AT_MOST and path.endswith(PLAIN_SUFFIXES)
        entries[path] = Entry(
            path,
            shard.size,
            shard.sha256,
            names.get(path, "") if plain else "",
            shard.is_manifest,
        )
    return Listing(entries)


def _git_names(described: Shard | None) -> dict[str, str]:
    """Return git's SHA-1 of each file that `checkpoint.json` gives one of."""
    if described is None:
        return {}
    with store().open(described.store_key, described.store_version) as file:
        content = file.read(MAX_SIDE_BYTES)
    if hashlib.sha256(content).hexdigest() != described.sha256:
        raise StoreError(f"{described.store_key} in the store is not what was signed.")
    try:
        files = strict_json.loads(content, CHECKPOINT, max_bytes=MAX_SIDE_BYTES)["files"]
    except (ManifestError, KeyError, TypeError) as error:
        raise StoreError(f"{described.store_key} in the store cannot be read: {error}") from error
    return {path: file["git_sha1"] for path, file in files.items() if file.get("git_sha1")}
