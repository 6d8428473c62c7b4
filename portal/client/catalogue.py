"""What a portal publishes, and the signed manifests of it, kept in a folder of one's own.

Nothing here is trusted: digests from the listing only say that a file is the one that the portal
meant. Whether to believe a manifest is decided by its signature and a key installed beforehand.
"""

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from verifier import names, oms
from verifier.errors import ManifestError
from verifier.manifest import BUNDLE_NAME, MAX_SIDE_BYTES, SIDE_FOLDER

from .errors import PortalError
from .site import Site

PLACE = "/api/v1/checkpoints"
MAX_PAGES = 1_000
MAX_MANIFEST_FILES = 64
MAX_SKETCH_BYTES = 256 << 20
_SLUG = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_SLUG}/{_SLUG}@{_SLUG}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file of a manifest: what it is called, what it is, where it lies."""

    path: str
    sha256: str
    url: str


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint that a portal says it publishes."""

    name: str
    revision: int
    manifest: tuple[OpenFile, ...]


def published(site: Site, name: str | None = None) -> Iterator[Published]:
    """Give what ``site`` publishes, or only the checkpoint called ``name``.

    Raises:
        PortalError: it cannot be asked, or does not answer as a portal does.
    """
    place: str | None = PLACE + (f"?{urlencode({'name': name})}" if name else "")
    for _ in range(MAX_PAGES):
        if place is None:
            return
        page = site.get_json(place)
        try:
            found = [_read(entry) for entry in page["checkpoints"]]
            place = page["next"]
            if place is not None and not isinstance(place, str):
                raise TypeError(place)
        except (KeyError, TypeError, ValueError, ManifestError):
            raise PortalError(
                f"{site.origin.host} lists what is published in a form unknown here; "
                "update Weighbridge."
            ) from None
        yield from found
    raise PortalError(f"{site.origin.host} lists more than {MAX_PAGES:,} pages.")


def one(site: Site, name: str) -> Published:
    """Return the checkpoint called ``name``.

    Raises:
        PortalError: it is not published there.
    """
    for found in published(site, name):
        if found.name == name:
            return found
    raise PortalError(f"{names.shown(name)[:200]} is not published at {site.url}.")


def fetch_manifest(site: Site, found: Published, folder: Path) -> Path:
    """Bring the manifest of ``found`` into ``folder``, where it may be already; return its bundle.

    Raises:
        PortalError: a file cannot be fetched or is not the one listed.
    """
    place = folder / found.name / str(found.revision)
    for file in found.manifest:
        target = place / file.path
        if _digest_of(target) == file.sha256:
            continue
        limit = oms.MAX_BUNDLE_BYTES if file.path == BUNDLE_NAME else MAX_SIDE_BYTES
        data = site.get_bytes(file.url, limit)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise PortalError(f"{site.origin.host} sent another {file.path} than it lists.")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_bytes(data)
        draft.replace(target)
    return place / BUNDLE_NAME


def fetch_sketch(site: Site, name: str) -> bytes:
    """Return the secret sketch of the checkpoint ``name``, which only a token opens.

    Raises:
        RefusedError: the portal says no.
    """
    return site.get_bytes(f"{site.url}{PLACE}/{name}/sketch", MAX_SKETCH_BYTES)


def cache_folder(site: Site) -> Path:
    """Return the folder of mode 0700 for what ``site`` publishes, in the temporary folder.

    One that somebody else made there is not used; then it is a new one.
    """
    shared = Path(tempfile.gettempdir()) / f"weighbridge-{os.geteuid()}"
    try:
        shared.mkdir(mode=0o700)
    except FileExistsError:
        status = shared.lstat()
        own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not own or stat.S_IMODE(status.st_mode) & 0o077:
            shared = Path(tempfile.mkdtemp(prefix="weighbridge-"))
    return shared / hashlib.sha256(site.url.encode()).hexdigest()[:16]


def _read(entry: Any) -> Published:
    name, revision = entry["name"], entry["revision"]
    files = tuple(
        OpenFile(str(file["path"]), str(file["sha256"]), str(file["url"]))
        for file in entry["manifest"]
    )
    paths = [file.path for file in files]
    if not _NAME.fullmatch(name) or not isinstance(revision, int) or BUNDLE_NAME not in paths:
        raise ValueError(name)
    for file in files:
        inside = file.path == BUNDLE_NAME or file.path.startswith(f"{SIDE_FOLDER}/")
        if not inside or names.safe(file.path) != file.path or not _SHA256.fullmatch(file.sha256):
            raise ValueError(file.path)
    if len(files) > MAX_MANIFEST_FILES:
        raise ValueError(name)
    return Published(name, revision, files)


def _digest_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
