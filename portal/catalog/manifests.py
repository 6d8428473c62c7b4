"""A checkpoint's signed manifest as a folder, for the verifier; and the sketch that stays secret."""

import secrets
from pathlib import Path

from django.conf import settings

from portal.catalog.models import Checkpoint
from portal.storage.stores import store


def manifest_of(checkpoint: Checkpoint) -> Path:
    """Return a folder with ``model.sig`` and ``.weighbridge/`` of ``checkpoint``.

    It is fetched from the store once; what it holds is checked by whoever verifies with it.
    """
    folder = settings.DATA / "manifests" / checkpoint.name / str(checkpoint.revision)
    for shard in checkpoint.shards.manifest():
        target = folder / shard.path
        if target.is_file() and target.stat().st_size == shard.size:
            continue
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with store().open(shard.store_key) as source:
            draft = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
            draft.write_bytes(source.read())
            draft.replace(target)
    return folder


def sketch_of(checkpoint: Checkpoint) -> Path | None:
    """Return the secret sketch of ``checkpoint``'s weights, if one was made."""
    path = sketch_path(checkpoint.name)
    return path if path.is_file() else None


def sketch_path(name: str) -> Path:
    """Return where the sketch of the checkpoint with this name is kept."""
    return settings.DATA / "sketches" / f"{name}.json"


def release_key() -> Path:
    """Return where the public release key lies, by which this portal's manifests are verified."""
    return settings.DATA / "keys" / "release.pub.pem"
