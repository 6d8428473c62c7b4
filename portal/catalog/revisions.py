"""Sign a published checkpoint again: a new revision of its manifest over the same files.

Only `checkpoint.json` (revision, time, digest of the statement before) and the bundle are new. The
earlier ones stay in the store and in the database, marked as replaced.
"""

import hashlib
import json
from datetime import datetime

from django.db import transaction

from portal.audit.chain import record
from portal.catalog import keyring
from portal.catalog.models import Checkpoint, Shard
from portal.storage.stores import store
from verifier import manifest, oms
from verifier.trust import Trust

MAX_BYTES = 64 << 20


class ResignError(Exception):
    """The checkpoint keeps the manifest that it has; the message says why."""


def resign(checkpoint: Checkpoint, *, by: str, at: datetime) -> Checkpoint:
    """Sign the newest revision plus one of the checkpoint's manifest with the release key in use.

    The digests that are signed are those which were recorded when it was published.

    Raises:
        ResignError: its manifest in the store is not the one recorded, or somebody signed a
            revision meanwhile.
        KeyringError: there is no release key.
        StoreError: the store cannot give or take the manifest.
    """
    key = keyring.release_key(by=by, at=at)
    revision = checkpoint.revision + 1
    shards = {shard.path: shard for shard in checkpoint.shards.current()}
    described = _describe_again(checkpoint, shards, revision, at)
    resources = [
        oms.Resource(path, shard.sha256)
        for path, shard in shards.items()
        if path not in (manifest.BUNDLE_NAME, manifest.CHECKPOINT)
    ]
    resources.append(oms.Resource(manifest.CHECKPOINT, hashlib.sha256(described).hexdigest()))
    bundle = oms.sign(resources, checkpoint.name, key)
    statement = oms.verify(bundle, Trust.in_keys(key.public_key()))
    files = {manifest.CHECKPOINT: described, manifest.BUNDLE_NAME: bundle}
    # the name of the place holds the bundle's digest, so that two who sign at once share none
    place = f"revisions/{checkpoint.name}/{revision}-{hashlib.sha256(bundle).hexdigest()[:16]}"
    new = [_store(checkpoint, place, path, content) for path, content in files.items()]
    return _write_rows(checkpoint, revision, new, statement, by=by, at=at)


def _describe_again(
    checkpoint: Checkpoint, shards: dict[str, Shard], revision: int, at: datetime
) -> bytes:
    """Return checkpoint.json for the new revision."""
    recorded = shards.get(manifest.CHECKPOINT)
    if recorded is None or manifest.BUNDLE_NAME not in shards:
        raise ResignError(f"{checkpoint} has no manifest to be signed again; publish it anew.")
    with store().open(recorded.store_key, recorded.store_version) as file:
        content = file.read(MAX_BYTES)
    if hashlib.sha256(content).hexdigest() != recorded.sha256:
        raise ResignError(
            f"{recorded.store_key} in the store is not what was published; bring it back first."
        )
    described = json.loads(content)
    described |= {
        "revision": revision,
        "issued": at.isoformat(),
        "previous": checkpoint.statement_sha256,
    }
    return json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _store(checkpoint: Checkpoint, place: str, path: str, content: bytes) -> Shard:
    key = f"{place}/{path}"
    stored = store().put_bytes(key, content)
    return Shard(
        checkpoint=checkpoint,
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        store_key=key,
        store_version=stored.version,
        is_manifest=True,
    )


@transaction.atomic
def _write_rows(
    checkpoint: Checkpoint,
    revision: int,
    new: list[Shard],
    statement: oms.Statement,
    *,
    by: str,
    at: datetime,
) -> Checkpoint:
    won = Checkpoint.objects.filter(pk=checkpoint.pk, revision=revision - 1).update(
        revision=revision, statement_sha256=statement.digest, signed_by=statement.signed_by
    )
    if not won:
        raise ResignError(f"Somebody else signed {checkpoint} again at the same time.")
    replaced = checkpoint.shards.current().filter(path__in=[shard.path for shard in new])
    replaced.update(replaced_at=at)
    Shard.objects.bulk_create(new)
    record(
        "checkpoint.resigned",
        subject=checkpoint.subject,
        actor=by,
        at=at,
        revision=revision,
        statement=statement.digest,
        previous=checkpoint.statement_sha256,
        key=statement.signed_by,
    )
    checkpoint.refresh_from_db()
    return checkpoint
