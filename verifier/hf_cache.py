"""The cache folder of Hugging Face's tools, whose snapshots are links to blobs beside them.

    models--meta-llama--Llama-2-7b/
        refs/main                              the revision that `main` was
        snapshots/<revision>/config.json    →  ../../blobs/<etag>
        blobs/<etag>                           a file, or  →  ../../blobs/<xx>/<xet hash>
    blobs/<xx>/<xet hash>                      shared by the repositories of a cache

These links are followed, and only these: each ends in a file of the store that its own cache has.
(huggingface_hub, "Understand caching"; its `utils/_shared_blobs.py` for the shared store.)
"""

import os
import re
import stat
from pathlib import Path

from . import names
from .errors import InputError

_REPOSITORY = re.compile(r"models--.+")
_SHARED = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[\w.][\w.+-]{0,254}")
MAX_DEPTH = 32
MAX_SNAPSHOTS = 1000
_SHOWN = 3


def blob_behind(root: Path, link: Path) -> Path | None:
    """Return the file of the store that ``link`` in the snapshot ``root``, or below it, ends in.

    None where ``root`` is not in a cache, or the link leads anywhere else. ``root`` is resolved,
    and the folders between it and the link are none themselves.
    """
    store = _store_of(root)
    if store is None:
        return None
    try:
        blob = _target(link)
        if blob.parent != store:
            return None
        if stat.S_ISLNK(blob.lstat().st_mode):
            blob = _target(blob)
            shared = store.parent.parent / "blobs"
            if blob.parent != shared / blob.name[:2] or not _SHARED.fullmatch(blob.name):
                return None
            if blob.parent.is_symlink() or shared.is_symlink():
                return None
        return blob if stat.S_ISREG(blob.lstat().st_mode) else None
    except (OSError, ValueError):
        return None


def snapshot_of(folder: Path) -> Path:
    """Return the snapshot that ``folder``, a repository of a cache, means; else ``folder`` itself.

    It is the one that `main` was, or the only one.

    Raises:
        InputError: there are several, and nothing says which.
    """
    snapshots = folder / "snapshots"
    if not _REPOSITORY.fullmatch(folder.name) or not _is_folder(snapshots):
        return folder
    main = _main(folder / "refs" / "main")
    if main is not None and _is_folder(snapshots / main):
        return snapshots / main
    with os.scandir(snapshots) as entries:
        found = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
            if len(found) > MAX_SNAPSHOTS:
                break
    if len(found) == 1:
        return snapshots / found[0]
    shown = names.shown(str(folder))
    if not found:
        raise InputError(f"{shown} is a cache without a snapshot; download the checkpoint again.")
    some = ", ".join(f"snapshots/{names.shown(name)}" for name in sorted(found)[:_SHOWN])
    more = " and others" if len(found) > _SHOWN else ""
    raise InputError(f"{shown} holds several snapshots: give one of {some}{more}.")


def _store_of(root: Path) -> Path | None:
    """Return the blobs of the cache in which ``root`` is a snapshot or lies below one."""
    if "snapshots" not in root.parts:
        return None  # asked for every link of a folder: most folders are in no cache
    for folder in (root, *root.parents)[:MAX_DEPTH]:
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and _REPOSITORY.fullmatch(repository.name):
            store = repository / "blobs"
            return store if _is_folder(store) else None
    return None


def _target(link: Path) -> Path:
    """Return where a link leads by its text; further links on the way are not followed."""
    return Path(os.path.normpath(link.parent / link.readlink()))


def _is_folder(path: Path) -> bool:
    """Tell whether ``path`` is a folder and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _main(path: Path) -> str | None:
    """Return the revision in ``refs/main``, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(descriptor, 256).decode("ascii", "replace").strip()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return text if _REVISION.fullmatch(text) and text not in (".", "..") else None
