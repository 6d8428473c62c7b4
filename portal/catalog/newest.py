"""latest.json: what this portal says now (verifier/latest.py), signed again before it expires."""

from datetime import datetime, timedelta
from pathlib import Path

from portal.catalog import keyring
from portal.catalog.models import Checkpoint, Notice
from verifier import latest
from verifier.errors import VerifierError
from verifier.keys import replace_file
from verifier.latest import Latest, Newest, Recall
from verifier.roots import Root

LIFETIME = timedelta(days=14)
SIGNED_AGAIN_AFTER = timedelta(days=7)


class UnsignedError(Exception):
    """What is newest cannot be signed; an older word is not given out instead."""


def latest_file() -> Path:
    """Return where latest.json lies, beside root.json."""
    return keyring.folder() / latest.NAME


def current(*, by: str, at: datetime) -> bytes:
    """Return latest.json, signed anew where the catalogue changed or half of its time is over.

    Raises:
        UnsignedError: it would have to be signed, and cannot be.
    """
    try:
        root = keyring.current(by=by, at=at)
        said = _catalogue()
        kept = _kept(root)
        if kept and _says(kept[1], root, said) and at < kept[1].issued_at + SIGNED_AGAIN_AFTER:
            return kept[0]
        key = keyring.private_key("latest", root)
        data = latest.sign(root, [key], issued_at=at, expires_at=at + LIFETIME, **said)
        replace_file(latest_file(), data, 0o644)
    except (keyring.KeyringError, VerifierError) as error:
        raise UnsignedError(f"latest.json cannot be signed: {error}") from error
    except OSError as error:
        raise UnsignedError(f"latest.json cannot be kept: {error.strerror}.") from error
    return data


def _catalogue() -> dict[str, dict]:
    """Return what the catalogue says, as `latest.sign` takes it."""
    newest: dict[str, str] = {}
    checkpoints: dict[str, Newest] = {}
    rows = Checkpoint.objects.select_related("family").order_by("published_at", "pk")
    for checkpoint in rows:
        newest[checkpoint.name.rpartition("@")[0]] = checkpoint.version
        checkpoints[checkpoint.name] = Newest(checkpoint.revision, checkpoint.statement_sha256)
    notices = Notice.objects.select_related("checkpoint__family", "replacement__family")
    recalls = {
        notice.checkpoint.name: Recall(
            notice.reason, notice.replacement.name if notice.replacement else None, notice.at
        )
        for notice in notices.order_by("at", "pk")
    }
    return {"newest": newest, "checkpoints": checkpoints, "recalls": recalls}


def _kept(root: Root) -> tuple[bytes, Latest] | None:
    """Return the latest.json signed last, if the root in force still holds it good."""
    try:
        data = latest_file().read_bytes()
        return data, latest.verify(data, root)
    except (FileNotFoundError, VerifierError):
        return None


def _says(kept: Latest, root: Root, said: dict[str, dict]) -> bool:
    told = {"newest": kept.newest, "checkpoints": kept.checkpoints, "recalls": kept.recalls}
    return kept.root_version == root.version and told == said
