"""The manifest of a checkpoint: a verified bundle, and the side files that it covers.

    model.sig                    the signature bundle (oms.py)
    .weighbridge/checkpoint.json name, revision, and per file: size and roots
    .weighbridge/leaves.bin      SHA-256 of every 4 MiB of each file, files in code point order
    .weighbridge/leaves.b3       the same in BLAKE3
    .weighbridge/tensors.json    value digests of each tensor (values.py)
    .weighbridge/reference.json  what the inference check must answer

Each side file is checked against its signed SHA-256 before a byte of it is believed. One that is
missing or differs is not used, and is a finding; whole-file SHA-256 serves instead.
"""

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import names, oms, strict_json
from .digests import DIGEST_BYTES, LEAF_BYTES, LeafList, leaf_count, leaf_root
from .errors import ManifestError
from .findings import Code, Finding
from .trust import Trust
from .walk import MAX_FILE_BYTES

BUNDLE_NAME = "model.sig"
SIDE_FOLDER = ".weighbridge"
CHECKPOINT = f"{SIDE_FOLDER}/checkpoint.json"
LEAVES = {"sha256": f"{SIDE_FOLDER}/leaves.bin", "blake3": f"{SIDE_FOLDER}/leaves.b3"}
TENSORS = f"{SIDE_FOLDER}/tensors.json"
REFERENCE = f"{SIDE_FOLDER}/reference.json"

SIDE_FILES = (CHECKPOINT, *LEAVES.values(), TENSORS, REFERENCE)

CONFIGS = ("config.json", "params.json")
MAX_CONFIG_BYTES = 1 << 20

SCHEMA = 1
MAX_SIDE_BYTES = 48 << 20
MAX_ALL_SIDE_BYTES = 64 << 20
"""All side files are kept in memory together: those of a checkpoint of 8 TB."""
MAX_TENSOR_ITEMS = 2_000_000
"""Items of tensors.json, which is signed: those of a hundred thousand tensors."""

_HEX = {bits: re.compile(rf"[0-9a-f]{{{bits // 4}}}") for bits in (160, 256)}


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file outside ``.weighbridge/``; without checkpoint.json only its SHA-256 is known.

    Another publisher, or an unsigned list, may use another ``algorithm``: then ``digest`` is that,
    and ``sha256`` is empty.
    """

    name: str
    sha256: str
    size: int | None = None
    bt2_root: str | None = None
    git_sha1: str | None = None
    leaves: Mapping[str, LeafList] | None = None
    algorithm: str = "sha256"
    digest: str = ""

    @classmethod
    def of(cls, resource: oms.Resource) -> "ManifestFile":
        """Take what was signed of one file."""
        return cls(
            resource.name,
            resource.sha256,
            resource.size,
            algorithm=resource.algorithm,
            digest=resource.digest,
        )

    @property
    def resource(self) -> oms.Resource:
        """What was signed of it."""
        return oms.Resource(self.name, self.sha256, self.size, self.algorithm, self.digest)

    @property
    def whole(self) -> str:
        """The digest, in hex, of the whole file by its ``algorithm``."""
        return self.digest or self.sha256

    def leaf_list(self, kinds: Sequence[str]) -> LeafList | None:
        """Return its signed leaves in the first of ``kinds`` that there is."""
        found = self.leaves or {}
        return next((found[kind] for kind in kinds if kind in found), None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was signed, and the side files that are as they were signed.

    ``stale`` is None where nobody says whether it is the newest (freshness.py).
    """

    statement: oms.Statement
    location: Path
    files: Mapping[str, ManifestFile]
    name: str
    revision: int | None = None
    issued: str | None = None
    previous: str | None = None
    license: str = ""
    terms: str = ""
    side: Mapping[str, bytes] | None = None
    findings: tuple[Finding, ...] = ()
    stale: bool | None = None

    def side_file(self, name: str) -> bytes | None:
        """Return the checked bytes of a side file, or None where it is missing or differs."""
        return (self.side or {}).get(name)

    def tensors(self) -> dict[str, Any] | None:
        """Return tensors.json, or None where there is none.

        Raises:
            ManifestError: it is not what it should be, although it was signed.
        """
        data = self.side_file(TENSORS)
        if data is None:
            return None
        value = strict_json.loads(
            data, TENSORS, max_bytes=MAX_SIDE_BYTES, max_items=MAX_TENSOR_ITEMS
        )
        if not isinstance(value, dict) or not _is_schema(value.get("schema")):
            raise ManifestError(f"{TENSORS} is of a form that this version does not know.")
        rows = value.get("tensors")
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            raise ManifestError(f"{TENSORS} has a row without name, shape, place or value digests.")
        if len({row["name"] for row in rows}) != len(rows):
            raise ManifestError(f"{TENSORS} has two rows of one name.")
        return value


def load(location: Path, trust: Trust) -> Manifest:
    """Read the bundle at ``location`` and the side files beside it.

    Raises:
        ManifestError: it cannot be read, or is malformed, or over a limit.
        SignatureError: the signature does not hold or its signer is not trusted.
    """
    statement = oms.verify(read_bounded(location, oms.MAX_BUNDLE_BYTES), trust)
    signed = {resource.name: resource for resource in statement.resources}
    side, findings = _read_side_files(location.parent, signed)
    outside = {name: r for name, r in signed.items() if not _is_side(name)}
    if CHECKPOINT in signed:
        names.check_portable(signed)
    plain = Manifest(
        statement=statement,
        location=location,
        files={name: ManifestFile.of(r) for name, r in outside.items()},
        name=statement.name,
        side=side,
        findings=tuple(findings),
    )
    return _with_checkpoint(plain, side[CHECKPOINT]) if CHECKPOINT in side else plain


def published_configs(manifest: Manifest) -> dict[str, bytes]:
    """Return the configs that lie beside the manifest and are as they were signed, by name."""
    found = {}
    for name in CONFIGS:
        entry = manifest.files.get(name)
        if entry is None or not (manifest.location.parent / name).is_file():
            continue
        with contextlib.suppress(ManifestError):
            data = read_bounded(manifest.location.parent / name, MAX_CONFIG_BYTES)
            if entry.resource.matches(data):
                found[name] = data
    return found


def read_bounded(path: Path, limit: int, what: str = "The manifest") -> bytes:
    """Return the bytes of the regular file ``path``, at most ``limit``; a link is followed.

    ``what`` says in errors what the file is.

    What is read here is checked by signature or digest, so where a link leads does no harm.

    Raises:
        ManifestError: it is not there, not a regular file, cannot be read, or is larger.
    """
    shown = names.shown(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(f"{what} {shown} cannot be read: {reason}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ManifestError(f"{what} {shown} is not a regular file.")
        if status.st_size > limit:
            raise ManifestError(f"{what} {shown} is larger than {limit >> 20} MiB.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def _is_schema(value: object) -> bool:
    return type(value) is int and value == SCHEMA


def _is_row(row: object) -> bool:
    """Tell whether ``row`` of tensors.json has what is used of it, in bounds."""
    if not isinstance(row, dict):
        return False
    match row:
        case {"name": str(), "shape": list(shape), "values": {"exact": str(), **others}}:
            places = row.get("place", [])
            return (
                all(map(_is_number, shape))
                and all(isinstance(digest, str) for digest in others.values())
                and isinstance(places, list)
                and all(map(_is_place, places))
            )
    return False


def _is_place(place: object) -> bool:
    match place:
        case {"file": str(), "start": start, "end": end}:
            return _is_number(start) and _is_number(end)
    return False


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_FILE_BYTES


def _is_side(name: str) -> bool:
    return name.startswith(f"{SIDE_FOLDER}/")


def _read_side_files(
    folder: Path, signed: Mapping[str, oms.Resource]
) -> tuple[dict[str, bytes], list[Finding]]:
    side: dict[str, bytes] = {}
    findings = []
    kept = 0
    for name in filter(_is_side, signed):
        if not os.path.lexists(folder / name):
            message = f"{names.shown(name)} is not there; what it would tell was not checked."
            findings.append(Finding(Code.SIDE_FILE_MISSING, name, message))
            continue
        try:
            data = read_bounded(folder / name, MAX_SIDE_BYTES)
            if signed[name].matches(data):
                kept += len(data) if name in SIDE_FILES else 0
                if kept > MAX_ALL_SIDE_BYTES:
                    raise ManifestError(
                        f"The side files are larger than {MAX_ALL_SIDE_BYTES >> 20} MiB together."
                    )
                if name in SIDE_FILES:
                    side[name] = data
                continue
            reason = "it is not the one that was signed"
        except ManifestError as error:
            reason = str(error).rstrip(".")
        message = f"{names.shown(name)} was not used: {reason}."
        findings.append(Finding(Code.SIDE_FILE_DIFFERS, name, message))
    return side, findings


def _with_checkpoint(manifest: Manifest, data: bytes) -> Manifest:
    """Fill in what checkpoint.json and the leaf lists say."""
    content = strict_json.loads(data, CHECKPOINT, max_bytes=MAX_SIDE_BYTES)
    if not isinstance(content, dict) or not _is_schema(content.get("schema")):
        raise ManifestError(
            f"{CHECKPOINT} is of a form that this version does not know; update Weighbridge."
        )
    described = _get(content, "files", dict)
    if set(described) != set(manifest.files):
        raise ManifestError(f"{CHECKPOINT} does not describe the files that were signed.")
    if _get(content, "leaf_size", int) != LEAF_BYTES:
        raise ManifestError(f"{CHECKPOINT} has leaves that are not of {LEAF_BYTES >> 20} MiB.")
    revision = _get(content, "revision", int)
    if revision < 1:
        raise ManifestError(f"{CHECKPOINT} has no positive revision.")
    previous = content.get("previous")
    if previous is not None:
        _hex(content, "previous", 256)
    sizes = {name: _size(_get(described, name, dict)) for name in described}
    lists = _cut_leaves(manifest, described, sizes)
    files = {
        name: replace(
            file,
            size=sizes[name],
            bt2_root=_optional_hex(described[name], "bt2_root", 256),
            git_sha1=_optional_hex(described[name], "git_sha1", 160),
            leaves=lists[name],
        )
        for name, file in manifest.files.items()
    }
    return replace(
        manifest,
        files=files,
        name=_get(content, "checkpoint", str),
        revision=revision,
        issued=_get(content, "issued", str),
        previous=previous,
        license=_text(content, "license"),
        terms=_text(content, "terms"),
    )


def _cut_leaves(
    manifest: Manifest, described: Mapping[str, Any], sizes: Mapping[str, int]
) -> dict[str, dict[str, LeafList]]:
    """Cut each leaf list into its files' parts, checked against the files' roots."""
    lists: dict[str, dict[str, LeafList]] = {name: {} for name in sizes}
    total = sum(leaf_count(size) for size in sizes.values()) * DIGEST_BYTES
    for kind, side_name in LEAVES.items():
        data = manifest.side_file(side_name)
        if data is None:
            continue
        if len(data) != total:
            raise ManifestError(f"{side_name} does not have a digest for every leaf.")
        at = 0
        for name in sorted(sizes):
            end = at + leaf_count(sizes[name]) * DIGEST_BYTES
            if leaf_root(data[at:end]) != _hex(described[name], f"leaf_{kind}", 256):
                raise ManifestError(f"{side_name} contradicts {CHECKPOINT} for {name}.")
            lists[name][kind] = LeafList(kind, data[at:end])
            at = end
    return lists


def _get(mapping: Any, key: str, kind: type) -> Any:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        shown = names.shown(key[:80])
        raise ManifestError(f"{CHECKPOINT}: the field `{shown}` is missing or of the wrong type.")
    return value


def _text(content: Mapping[str, Any], key: str) -> str:
    return "" if content.get(key) is None else str(_get(content, key, str))


def _size(described: Mapping[str, Any]) -> int:
    size: int = _get(described, "size", int)
    if not 0 <= size <= MAX_FILE_BYTES:
        raise ManifestError(f"{CHECKPOINT}: a `size` is not between 0 and 2^50 bytes.")
    return size


def _hex(mapping: Any, key: str, bits: int) -> str:
    value: str = _get(mapping, key, str)
    if not _HEX[bits].fullmatch(value):
        raise ManifestError(f"{CHECKPOINT}: `{key}` is not a digest in lowercase hex.")
    return value


def _optional_hex(mapping: Any, key: str, bits: int) -> str | None:
    return None if mapping.get(key) is None else _hex(mapping, key, bits)
