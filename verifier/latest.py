"""What the publisher says now: newest versions and revisions, recalls, keys revoked.

    latest.json    payload type application/vnd.weighbridge.latest+json, in an envelope
                   (envelopes.py) that carries the threshold of the root's `latest` role:

    {"type": "latest", "schema": 1, "root": IDENTITY, "root_version": 2,
     "issued": TIME, "expires": TIME (7 to 30 days later),
     "newest": {"llama/7b": "2", …},
     "checkpoints": {"llama/7b@1": {"revision": 3, "statement": SHA256}, …},
     "recalls": {"llama/7b@1": {"reason": TEXT, "replacement": "llama/7b@2" | null, "at": TIME}, …},
     "revoked": {KEYID: {"reason": TEXT, "at": TIME}, …}}

After the timestamp and snapshot roles of The Update Framework (TUF 1.0.33, sections 4.6 and 5.4),
in one document. It lies beside root.json, outside of every signed folder. One that expired is no
reason to distrust a copy: what it says was true when it was signed.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from . import names, roots, strict_json
from .envelopes import Envelope, PrivateKey, field, read, time_field
from .errors import ManifestError, SignatureError, VerifierError
from .roots import Root

PAYLOAD_TYPE = "application/vnd.weighbridge.latest+json"
NAME = "latest.json"
SCHEMA = 1

MAX_LATEST_BYTES = 16 << 20
MAX_ENTRIES = 100_000
SHORTEST, LONGEST = timedelta(days=7), timedelta(days=30)

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest revision of a checkpoint version's manifest; ``statement`` is its SHA-256."""

    revision: int
    statement: str


@dataclass(frozen=True, slots=True)
class Recall:
    """A checkpoint version that should no longer be used, and which one instead."""

    reason: str
    replacement: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Latest:
    """What one latest.json says; ``newest`` is the newest version by FAMILY/VARIANT."""

    root: str
    root_version: int
    issued_at: datetime
    expires_at: datetime
    newest: Mapping[str, str]
    checkpoints: Mapping[str, Newest]
    recalls: Mapping[str, Recall]
    revoked: Mapping[str, str]
    digest: str

    def newer_version(self, checkpoint: str) -> str | None:
        """Return the full name of the newest version where ``checkpoint`` is another one."""
        variant, _, version = checkpoint.rpartition("@")
        newest = self.newest.get(variant)
        return f"{variant}@{newest}" if newest is not None and newest != version else None


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """A root that is trusted here, and what lies beside it; ``reason``: why there is no latest."""

    root: Root
    path: Path
    latest: Latest | None = None
    reason: str = ""


def load_root(path: Path) -> TrustedRoot:
    """Return the newest root reached from the one in ``path``, with the latest.json beside it.

    Raises:
        VerifierError: the root cannot be trusted; latest.json never is the reason.
    """
    root = roots.follow(path)
    beside = path.with_name(NAME)
    if not beside.is_file():
        return TrustedRoot(root, path)
    try:
        with beside.open("rb") as file:
            data = file.read(2 * MAX_LATEST_BYTES + 1)
        return TrustedRoot(root, path, verify(data, root, str(beside)))
    except OSError as error:
        reason = f"{beside} cannot be read: {error.strerror}."
    except VerifierError as error:
        reason = str(error)
    return TrustedRoot(root, path, reason=reason)


def sign(
    root: Root,
    keys: Sequence[PrivateKey],
    *,
    issued_at: datetime,
    expires_at: datetime,
    newest: Mapping[str, str],
    checkpoints: Mapping[str, Newest],
    recalls: Mapping[str, Recall],
) -> bytes:
    """Return a latest.json signed with ``keys``; what ``root`` revoked is said in it too.

    Raises:
        SignatureError: the keys do not reach the threshold of the root's `latest` role.
        ManifestError: it would not be valid for 7 to 30 days.
    """
    content = {
        "type": "latest",
        "schema": SCHEMA,
        "root": root.identity,
        "root_version": root.version,
        "issued": issued_at.isoformat(),
        "expires": expires_at.isoformat(),
        "newest": dict(newest),
        "checkpoints": {
            name: {"revision": one.revision, "statement": one.statement}
            for name, one in checkpoints.items()
        },
        "recalls": {
            name: {
                "reason": one.reason,
                "replacement": one.replacement,
                "at": one.at.isoformat(),
            }
            for name, one in recalls.items()
        },
        "revoked": {
            keyid: {"reason": one.reason, "at": one.at.isoformat()}
            for keyid, one in root.revoked.items()
        },
    }
    payload = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    data = Envelope(payload, PAYLOAD_TYPE, ()).signed_by(keys).as_bytes()
    verify(data, root)
    return data


def verify(data: bytes, root: Root, what: str = NAME) -> Latest:
    """Return what ``data`` says, if keys of the `latest` role of ``root`` signed it.

    Raises:
        SignatureError: too few of them did, or it belongs to another root.
        ManifestError: it is malformed or over a limit.
    """
    envelope = read(data, PAYLOAD_TYPE, what, max_bytes=2 * MAX_LATEST_BYTES)
    if root.missing("latest", envelope):
        raise SignatureError(f"{what} is not signed by the keys that the root names for it.")
    latest = _parse(envelope.payload, what)
    if latest.root != root.identity:
        raise SignatureError(f"{what} belongs to another root.")
    return latest


def _parse(payload: bytes, what: str) -> Latest:
    content = strict_json.loads(payload, what, max_bytes=MAX_LATEST_BYTES)
    if field(content, "type", str, what) != "latest" or content.get("schema") != SCHEMA:
        raise ManifestError(f"{what} is of a form that this version does not know.")
    issued_at, expires_at = (
        time_field(content, "issued", what),
        time_field(content, "expires", what),
    )
    if not SHORTEST <= expires_at - issued_at <= LONGEST:
        raise ManifestError(f"{what} is not valid for 7 to 30 days.")
    newest = _bounded(content, "newest", what)
    checkpoints = _bounded(content, "checkpoints", what)
    recalls = _bounded(content, "recalls", what)
    revoked = _bounded(content, "revoked", what)
    return Latest(
        root=field(content, "root", str, what),
        root_version=field(content, "root_version", int, what),
        issued_at=issued_at,
        expires_at=expires_at,
        newest={name: field(newest, name, str, what) for name in newest},
        checkpoints={name: _newest(entry, what) for name, entry in checkpoints.items()},
        recalls={name: _recall(entry, what) for name, entry in recalls.items()},
        revoked={keyid: _text(entry, "reason", what) for keyid, entry in revoked.items()},
        digest=hashlib.sha256(payload).hexdigest(),
    )


def _bounded(content: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    value: dict[str, Any] = field(content, key, dict, what)
    if len(value) > MAX_ENTRIES:
        raise ManifestError(f"{what}: `{key}` has more than {MAX_ENTRIES:,} entries.")
    return value


def _newest(entry: Any, what: str) -> Newest:
    revision = field(entry, "revision", int, what)
    statement = field(entry, "statement", str, what)
    if revision < 1 or not _SHA256.fullmatch(statement):
        raise ManifestError(f"{what}: a checkpoint's newest revision is not described as it must.")
    return Newest(revision, statement)


def _recall(entry: Any, what: str) -> Recall:
    replacement = None
    if isinstance(entry, dict) and entry.get("replacement") is not None:
        replacement = _text(entry, "replacement", what)
    return Recall(_text(entry, "reason", what), replacement, time_field(entry, "at", what))


def _text(entry: Any, key: str, what: str) -> str:
    return names.shown(field(entry, key, str, what))[:300]
