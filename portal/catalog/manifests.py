"""What the verifier is given: a manifest as a folder, whom to trust, the sketch that stays secret."""

import logging
import secrets
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.utils.timezone import now

from portal.catalog import keyring, newest
from portal.catalog.models import Checkpoint
from portal.storage.stores import store
from verifier.manifest import BUNDLE_NAME

logger = logging.getLogger(__name__)


def manifest_of(checkpoint: Checkpoint) -> Path:
    """Return a folder with ``model.sig`` and ``.weighbridge/`` of ``checkpoint``.

    It is fetched from the store once; what it holds is checked by whoever verifies with it.
    """
    shards = list(checkpoint.shards.manifest())
    # named by what lies there: a row read a moment ago may be of an older revision
    bundle = next((shard.sha256[:16] for shard in shards if shard.path == BUNDLE_NAME), "none")
    folder = settings.DATA / "manifests" / checkpoint.name / bundle
    for shard in shards:
        target = folder / shard.path
        if target.is_file() and target.stat().st_size == shard.size:
            continue
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with store().open(shard.store_key, shard.store_version) as source:
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


def identify_arguments(checkpoints: Iterable[Checkpoint]) -> list[str]:
    """Return the verifier's arguments that ask which of ``checkpoints`` a copy is; none for none."""
    manifests: list[str] = []
    sketches: list[str] = []
    for checkpoint in checkpoints:
        manifests += ["--manifest", str(manifest_of(checkpoint) / "model.sig")]
        sketches += ["--sketch", str(sketch_of(checkpoint) or "-")]
    if not manifests:
        return []
    return ["--identify", *manifests, *(sketches if set(sketches) - {"--sketch", "-"} else ())]


def trusted_root(*, by: str) -> Path:
    """Return root.json, by which this portal's manifests are verified, with a fresh latest.json.

    Where what is newest cannot be signed, the verifier says that nobody tells it.

    Raises:
        KeyringError: there is no root.
    """
    at = now()
    keyring.current(by=by, at=at)
    try:
        newest.current(by=by, at=at)
    except newest.UnsignedError as error:
        logger.error("%s", error)
    return keyring.root_file()
