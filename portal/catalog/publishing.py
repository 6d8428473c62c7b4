"""Publish a checkpoint: describe it, sign the manifest, store the files, write the rows.

The rows come last, in one transaction with their event: until then nothing is published, and an
interrupted `publish` is simply run again (finished files are neither hashed nor sent again).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from portal.audit.chain import record
from portal.catalog import keyring
from portal.catalog.manifests import sketch_path
from portal.catalog.models import Checkpoint, Family, Name, Shard, Terms
from portal.storage.keyfiles import read_or_make_secret
from portal.storage.stores import ExistsError, Progress, Stored, store
from verifier import oms, progress
from verifier.trust import Trust

BUNDLE = "model.sig"
SIDE_FOLDER = ".weighbridge/"

DEFAULT_TERMS = """\
These weights are given to you for research.

1. You use them for the purpose that you named in your application.
2. You do not pass them on, and you keep them where only you, and those you named, can reach them.
3. You do not use them to harm, deceive or surveil people.
4. You delete your copies when your access ends, or when you are asked to.
5. You tell us when a copy has come into other hands.
"""


class PublishError(Exception):
    """Nothing was published; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did."""

    checkpoint: Checkpoint
    is_new: bool
    notes: tuple[str, ...]


def make_family(slug: str, *, at: datetime) -> Family:
    """Return the family with this name, made with default terms where it is missing."""
    family, _ = Family.objects.get_or_create(
        slug=slug,
        defaults={"title": slug.replace("-", " ").title(), "created_at": at},
    )
    if not family.terms_versions.exists():
        add_terms(family, DEFAULT_TERMS, at=at)
    return family


def add_terms(
    family: Family, text: str, *, at: datetime, accept_by: datetime | None = None
) -> Terms:
    """Add a version of the family's terms."""
    last = family.terms_versions.order_by("-version").first()
    return Terms.objects.create(
        family=family,
        version=last.version + 1 if last else 1,
        text=text,
        sha256=Terms.digest_of(text),
        created_at=at,
        accept_by=accept_by,
    )


def publish(
    folder: Path,
    name: Name,
    *,
    by: str,
    at: datetime,
    with_files: Sequence[Path] = (),
    manifest_out: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
    show: progress.Progress = progress.silent,
) -> Published:
    """Publish the files of ``folder`` (and ``with_files``) as ``name``.

    Publishing the same bytes again changes nothing.

    Raises:
        PublishError: the folder cannot be described, or other bytes were published as ``name``.
        StoreError: the store cannot take the files.
    """
    work = settings.DATA / "publishing" / str(name).replace("/", "--")
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    # `describe` says again what is the case now; only its hashes are kept from an earlier run
    for stale in ("reference.json", "sketch.json", "resources.json"):
        (work / stale).unlink(missing_ok=True)
    shutil.rmtree(work / ".weighbridge", ignore_errors=True)
    notes = _make_reference(folder, work, say)
    _describe(folder, name, work, with_files, at)
    resources = json.loads((work / "resources.json").read_text())["resources"]
    earlier = Checkpoint.objects.named(name).first()
    if earlier:
        _require_same(earlier, resources)
        shutil.rmtree(work)
        return Published(earlier, False, ())
    sources = {file.name: file for file in with_files}
    statement = _sign(resources, name, work, by=by, at=at)
    files = [*resources, _resource_of(work / BUNDLE)]
    sent = Sent(show, sum(file["size"] for file in files))
    versions = {}
    for file in files:
        of_work = file["name"] == BUNDLE or file["name"].startswith(SIDE_FOLDER)
        source = sources.get(file["name"], (work if of_work else folder) / file["name"])
        versions[file["name"]] = _store(name, file, source, sent).version
    with keyring.locked(by=by, at=at) as root:
        if statement.signed_by not in root.roles["release"].keyids:
            raise PublishError(f"The release key was revoked meanwhile; publish {name} again.")
        checkpoint = _write_rows(name, files, versions, work, statement, by=by, at=at)
    if (work / "sketch.json").is_file():
        target = sketch_path(str(name))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(work / "sketch.json", target)
    if manifest_out:
        _write_out(work, manifest_out)
    shutil.rmtree(work)
    return Published(checkpoint, True, notes)


def _child(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run one of our own modules; its progress and sentences go to the terminal."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        cwd=settings.BASE_DIR,
        env=os.environ | {"WEIGHBRIDGE_DATA": str(settings.DATA)},
    )


def _make_reference(folder: Path, work: Path, say: Callable[[str], None]) -> tuple[str, ...]:
    made = _child("inference_check", str(folder), "--make-reference", str(work / "reference.json"))
    if made.returncode == 0:
        return ()
    note = (
        "No inference reference was made; copies of this checkpoint are verified by digests alone."
    )
    say(note)
    (work / "reference.json").unlink(missing_ok=True)
    return (note,)


def _describe(
    folder: Path, name: Name, work: Path, with_files: Sequence[Path], at: datetime
) -> None:
    sketch_key = settings.DATA / "keys" / "sketch.key"
    read_or_make_secret(sketch_key)
    arguments = ["verifier", "describe", str(folder), "--name", str(name), "--revision", "1"]
    arguments += ["--issued", at.isoformat(), "--out", str(work), "--sketch-key", str(sketch_key)]
    for file in with_files:
        arguments += ["--with", str(file)]
    if (work / "reference.json").is_file():
        arguments += ["--reference", str(work / "reference.json")]
    described = _child(*arguments)
    if described.returncode != 0:
        raise PublishError(f"{folder} was not published: the line above says what to change.")


def _require_same(earlier: Checkpoint, resources: Sequence[dict[str, Any]]) -> None:
    new = {r["name"]: r["sha256"] for r in resources if not r["name"].startswith(SIDE_FOLDER)}
    old = dict(earlier.shards.weights().values_list("path", "sha256"))
    if new != old:
        differing = sorted(
            path for path in new.keys() | old.keys() if new.get(path) != old.get(path)
        )
        raise PublishError(
            f"{earlier} is published with other bytes ({', '.join(differing[:3])}"
            f"{' and more' if len(differing) > 3 else ''}); "
            "a published version never changes: publish these as a new version."
        )


def _sign(
    resources: Sequence[dict[str, Any]], name: Name, work: Path, *, by: str, at: datetime
) -> oms.Statement:
    try:
        key = keyring.release_key(by=by, at=at)
    except keyring.KeyringError as error:
        raise PublishError(f"{name} was not published: {error}") from error
    bundle = oms.sign([oms.Resource(**resource) for resource in resources], str(name), key)
    (work / BUNDLE).write_bytes(bundle)
    return oms.verify(bundle, Trust.in_keys(key.public_key()))


def _resource_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "name": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


def _key(name: Name, path: str) -> str:
    return f"checkpoints/{name}/{path}"


class Sent:
    """Counts the bytes that are in the store and shows them."""

    def __init__(self, show: progress.Progress, total: int) -> None:
        self._show, self._total, self._done = show, total, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._show("store", self._done, self._total)


def _store(name: Name, file: dict[str, Any], source: Path, sent: Progress) -> Stored:
    """Put one file into the store; it must be what was hashed, before and after it was copied."""
    key = _key(name, file["name"])
    before = source.stat()
    try:
        stored = store().put_file(key, source, sent)
    except ExistsError:
        # left by an earlier publish of this name that did not finish
        if left := store().head(key):
            store().delete(key, left.version)
        stored = store().put_file(key, source, sent)
    after = source.stat()
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not unchanged or after.st_size != file["size"]:
        store().delete(key, stored.version)
        raise PublishError(f"{source} changed while it was published; publish again when it rests.")
    return stored


def _weights_digest(work: Path) -> str:
    """Return one digest over all exact value digests, equal for two layouts of equal weights."""
    tensors = work / ".weighbridge" / "tensors.json"
    if not tensors.is_file():
        return ""
    rows = json.loads(tensors.read_text())["tensors"]
    lines = sorted(f"{row['name']} {row['values']['exact']}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@transaction.atomic
def _write_rows(
    name: Name,
    files: Sequence[dict[str, Any]],
    versions: Mapping[str, str],
    work: Path,
    statement: oms.Statement,
    *,
    by: str,
    at: datetime,
) -> Checkpoint:
    checkpoint = Checkpoint.objects.create(
        family=make_family(name.family, at=at),
        variant=name.variant,
        version=name.version,
        statement_sha256=statement.digest,
        signed_by=statement.signed_by,
        weights_sha256=_weights_digest(work),
        has_reference=(work / "reference.json").is_file(),
        published_at=at,
        published_by=by,
    )
    Shard.objects.bulk_create(
        Shard(
            checkpoint=checkpoint,
            path=file["name"],
            size=file["size"],
            sha256=file["sha256"],
            store_key=_key(name, file["name"]),
            store_version=versions[file["name"]],
            is_manifest=file["name"] == BUNDLE or file["name"].startswith(SIDE_FOLDER),
        )
        for file in files
    )
    record(
        "checkpoint.published",
        subject=checkpoint.subject,
        actor=by,
        at=at,
        statement=statement.digest,
        files=len(files) - 1,  # the bundle is not one of those it signs
    )
    return checkpoint


def _write_out(work: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work / BUNDLE, target / BUNDLE)
    shutil.copytree(work / ".weighbridge", target / ".weighbridge", dirs_exist_ok=True)
