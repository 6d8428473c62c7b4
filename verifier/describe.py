"""Describe a folder for signing: digests of every file, leaf lists, value digests.

    WORK/resources.json               {"resources": [{"name", "sha256", "size"}, …]}, to be signed
    WORK/.weighbridge/…               the side files (manifest.py)
    WORK/sketch.json                  samples of each tensor by a secret seed; stays with the portal
    WORK/hashed/…                     a record per finished file, so that no file is hashed twice

The folder itself is only read. After an interruption the same call goes on where it was; a record
counts while size, times, inode and device of its file are what they were.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import engine, manifest, names, oms
from .digests import LEAF_BYTES, blake3_available, bt2_root, leaf_root
from .errors import InputError, ManifestError, ReadError
from .progress import Progress, counter
from .walk import FoundFile, check_unchanged, walk

SKIPPED = (*oms.IGNORE_PATHS, manifest.BUNDLE_NAME, manifest.SIDE_FOLDER)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*@[a-z0-9][a-z0-9._-]*", re.IGNORECASE)
_LEAF_KINDS = ("sha256", "blake3", "bt2")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the publisher says about the checkpoint; goes into checkpoint.json as it is."""

    name: str
    revision: int
    issued: str
    previous: str | None = None
    license: str = ""
    terms: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """The digests of one file."""

    name: str
    size: int
    sha256: str
    git_sha1: str
    leaf_sha256: bytes
    leaf_blake3: bytes
    bt2_root: str | None


def describe(
    folder: Path,
    checkpoint: Checkpoint,
    work: Path,
    progress: Progress,
    *,
    with_files: Sequence[Path] = (),
    reference: Path | None = None,
    sketch_key: Path | None = None,
) -> list[str]:
    """Write what is to be signed into ``work``; return sentences about what was left out.

    Raises:
        InputError: the folder is not there or empty, or holds a link out of it, a device, a name
            that is not portable, or a file that cannot be read; or the description is wrong.
    """
    _check(checkpoint)
    if not blake3_available():
        raise InputError("Publishing needs the blake3 package; install it: pip install blake3.")
    files = _list(folder, with_files)
    if work.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{work} lies inside {folder}, which is only read; choose another place.")
    (work / manifest.SIDE_FOLDER).mkdir(parents=True, exist_ok=True)
    described = _hash(files, work / "hashed", progress)
    notes = _write_values(folder, list(files), work, sketch_key, progress)
    (work / manifest.REFERENCE).unlink(missing_ok=True)
    if reference is not None:
        shutil.copyfile(reference, work / manifest.REFERENCE)
    _check_unchanged(files.values())
    _write_leaves(described, work)
    _write_json(work / manifest.CHECKPOINT, _checkpoint_json(checkpoint, described))
    _write_json(work / "resources.json", {"resources": _resources(described, work)})
    return notes


def _check(checkpoint: Checkpoint) -> None:
    if not _NAME.fullmatch(checkpoint.name):
        raise InputError(f"{checkpoint.name!r} is not a checkpoint name such as llama/7b@1.")
    if checkpoint.revision < 1:
        raise InputError("A revision is a positive number.")
    try:
        aware = datetime.fromisoformat(checkpoint.issued).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise InputError(f"{checkpoint.issued!r} is not an ISO 8601 time with its offset from UTC.")
    if checkpoint.previous is not None and not re.fullmatch("[0-9a-f]{64}", checkpoint.previous):
        raise InputError("The previous statement is named by its SHA-256, 64 lowercase hex digits.")


def _list(folder: Path, with_files: Sequence[Path]) -> dict[str, FoundFile]:
    """Return the files to be described, by the name that each will have, in code point order."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder that can be published.")
    listing = walk(folder, skip=SKIPPED)
    findings = list(listing.findings)
    files = dict(listing.files)
    for path in with_files:
        extra = walk(path)
        findings += extra.findings
        if path.is_dir() or path.name in files:
            raise InputError(f"{path} cannot be added: it is a folder, or its name is taken.")
        files |= extra.files
    if findings:
        raise InputError(f"{folder} cannot be published: {findings[0].message}")
    if not files:
        raise InputError(f"{folder} holds no file to publish.")
    if len(files) > oms.MAX_RESOURCES:
        raise InputError(f"{folder} holds more than {oms.MAX_RESOURCES:,} files.")
    try:
        names.check_portable(files, f"{folder} cannot be published, for it holds")
        for name in files:
            names.safe(name)
    except ManifestError as error:
        raise InputError(str(error)) from None
    return dict(sorted(files.items()))


def _hash(files: dict[str, FoundFile], records: Path, progress: Progress) -> list[Described]:
    records.mkdir(exist_ok=True)
    done = {name: _read_record(records, file) for name, file in files.items()}
    jobs = [
        engine.Job(files[name], _LEAF_KINDS, ("sha256", "git_sha1"))
        for name, record in done.items()
        if record is None
    ]
    advance = counter(progress, "files", sum(job.work for job in jobs))
    for result in engine.run(jobs, advance):
        file = result.job.file
        if result.error is not None:
            raise InputError(
                f"{names.shown(file.name)} cannot be published: {result.error.message}."
            )
        record = Described(
            name=file.name,
            size=file.size,
            sha256=result.whole["sha256"],
            git_sha1=result.whole["git_sha1"],
            leaf_sha256=bytes(result.leaves["sha256"]),
            leaf_blake3=bytes(result.leaves["blake3"]),
            bt2_root=bt2_root(bytes(result.leaves["bt2"])),
        )
        _write_record(records, file, record)
        done[file.name] = record
    return [record for record in done.values() if record is not None]


def _check_unchanged(files: Iterable[FoundFile]) -> None:
    """Make sure that what was hashed and what was read for values are the same bytes."""
    for file in files:
        try:
            check_unchanged(file)
        except ReadError as error:
            raise InputError(
                f"{names.shown(file.name)} cannot be published: {error.message}."
            ) from None


def _record_path(records: Path, name: str) -> Path:
    return records / f"{hashlib.sha256(name.encode()).hexdigest()}.json"


def _write_record(records: Path, file: FoundFile, record: Described) -> None:
    content = asdict(record) | {
        "leaf_sha256": record.leaf_sha256.hex(),
        "leaf_blake3": record.leaf_blake3.hex(),
        "identity": asdict(file.identity),
    }
    _write_json(_record_path(records, file.name), content)


def _read_record(records: Path, file: FoundFile) -> Described | None:
    """Return what an earlier run found, if the file is still the same; records are our own."""
    try:
        content = json.loads(_record_path(records, file.name).read_bytes())
        if content.pop("identity") != asdict(file.identity) or content["name"] != file.name:
            return None
        content["leaf_sha256"] = bytes.fromhex(content["leaf_sha256"])
        content["leaf_blake3"] = bytes.fromhex(content["leaf_blake3"])
        return Described(**content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_values(
    folder: Path, files: Sequence[str], work: Path, sketch_key: Path | None, progress: Progress
) -> list[str]:
    """Write tensors.json and the sketch where they can be made; return why not, where not."""
    from .readers import is_weight_file

    weights = [name for name in files if is_weight_file(name) and (folder / name).is_file()]
    (work / manifest.TENSORS).unlink(missing_ok=True)
    (work / "sketch.json").unlink(missing_ok=True)
    if not weights:
        return ["No value digests were made: there is no file with tensors."]
    from . import sketch, values

    if not values.available():
        return ["No value digests were made: torch is not installed here."]
    try:
        _write_json(work / manifest.TENSORS, values.describe(folder, weights, progress))
        if sketch_key is not None:
            made = sketch.make(folder, weights, sketch_key.read_bytes())
            _write_json(work / "sketch.json", made, mode=0o600)
    except ReadError as error:
        return [f"No value digests were made: {names.shown(str(error)).rstrip('.')}."]
    except OSError as error:
        raise InputError(f"{sketch_key} cannot be read: {error.strerror}.") from None
    return []


def _write_leaves(described: Sequence[Described], work: Path) -> None:
    _write(work / manifest.LEAVES["sha256"], b"".join(file.leaf_sha256 for file in described))
    _write(work / manifest.LEAVES["blake3"], b"".join(file.leaf_blake3 for file in described))


def _checkpoint_json(checkpoint: Checkpoint, described: Sequence[Described]) -> dict[str, Any]:
    return {
        "schema": manifest.SCHEMA,
        "checkpoint": checkpoint.name,
        "revision": checkpoint.revision,
        "issued": checkpoint.issued,
        "previous": checkpoint.previous,
        "leaf_size": LEAF_BYTES,
        "files": {
            file.name: {
                "size": file.size,
                "leaf_sha256": leaf_root(file.leaf_sha256),
                "leaf_blake3": leaf_root(file.leaf_blake3),
                "bt2_root": file.bt2_root,
                "git_sha1": file.git_sha1,
            }
            for file in described
        },
        "license": checkpoint.license,
        "terms": checkpoint.terms,
    }


def _resources(described: Sequence[Described], work: Path) -> list[dict[str, Any]]:
    """Return every file to be signed, side files included, in code point order of name."""
    resources = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in described]
    for name in manifest.SIDE_FILES:
        path = work / name
        if path.exists():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            resources.append({"name": name, "sha256": digest, "size": path.stat().st_size})
    return sorted(resources, key=lambda entry: str(entry["name"]))


def _write_json(path: Path, content: Any, mode: int = 0o644) -> None:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    _write(path, text.encode() + b"\n", mode)


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write ``path`` so that it is there whole or not at all, also after a power cut."""
    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
