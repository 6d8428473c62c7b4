"""The root: which keys may sign what, by a threshold, and how that changes.

    root.json      the newest; 1.root.json, 2.root.json, … every version, this one included
    payload type   application/vnd.weighbridge.root+json, in an envelope (envelopes.py):

    {"type": "root", "schema": 1, "version": 2, "first": SHA256 of version 1's payload | null in it,
     "issued": TIME, "expires": TIME,
     "keys": {KEYID: {"public": PEM}, …},
     "roles": {"root":    {"keyids": [KEYID, …], "threshold": 2},
               "release": {"keyids": [KEYID, …], "threshold": 1},
               "latest":  {"keyids": [KEYID, …], "threshold": 1}},
     "revoked": {KEYID: {"role": ROLE, "reason": TEXT, "at": TIME}, …}}

After The Update Framework 1.0.33 (TUF), sections 4.3 and 5.3: version N + 1 must carry the
thresholds of both N and N + 1, and no version is skipped. Of a role's keys the last is in use; an
earlier release key still verifies what it signed, until it is revoked. An expired root still
verifies (copies that nobody touches must not break); that it expired is said apart, as `stale`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import names, strict_json
from .envelopes import (
    KIND_P256,
    Envelope,
    PublicKey,
    field,
    key_id,
    kind_of,
    load_public,
    public_pem,
    read,
    time_field,
)
from .errors import InputError, ManifestError, SignatureError

PAYLOAD_TYPE = "application/vnd.weighbridge.root+json"
NAME = "root.json"
ROLES = ("root", "release", "latest")
SCHEMA = 1

MAX_ROOT_BYTES = 1 << 20
MAX_KEYS = 256
MAX_VERSION = 1 << 31
MAX_STEPS = 1024

_KEYID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Role:
    """The keys that may sign for a role, the one in use last, and how many of them must."""

    keyids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """A key that counts no longer, and why."""

    role: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Root:
    """One version of the root, as its payload says; ``digest`` is the SHA-256 of that."""

    version: int
    first: str | None
    issued_at: datetime
    expires_at: datetime
    keys: Mapping[str, PublicKey]
    roles: Mapping[str, Role]
    revoked: Mapping[str, Revoked]
    digest: str

    @property
    def identity(self) -> str:
        """What all versions of one root have in common: the digest of version 1."""
        return self.first or self.digest

    def keys_of(self, role: str) -> dict[str, PublicKey]:
        """Return the keys of ``role`` by id, the one in use last."""
        return {keyid: self.keys[keyid] for keyid in self.roles[role].keyids}

    def missing(self, role: str, envelope: Envelope) -> int:
        """Return how many signatures of ``role`` the envelope lacks."""
        counted = envelope.signers(self.keys_of(role))
        return max(self.roles[role].threshold - len(counted), 0)


def payload(
    *,
    version: int,
    first: str | None,
    issued_at: datetime,
    expires_at: datetime,
    keys: Iterable[PublicKey],
    roles: Mapping[str, Role],
    revoked: Mapping[str, Revoked],
) -> bytes:
    """Return the bytes of a root that is to be signed."""
    content = {
        "type": "root",
        "schema": SCHEMA,
        "version": version,
        "first": first,
        "issued": issued_at.isoformat(),
        "expires": expires_at.isoformat(),
        "keys": {key_id(key): {"public": public_pem(key).decode()} for key in keys},
        "roles": {
            name: {"keyids": list(role.keyids), "threshold": role.threshold}
            for name, role in roles.items()
        },
        "revoked": {
            keyid: {"role": one.role, "reason": one.reason, "at": one.at.isoformat()}
            for keyid, one in revoked.items()
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def open_envelope(data: bytes, what: str = NAME) -> Envelope:
    """Parse the envelope of a root; no signature is checked yet.

    Raises:
        ManifestError: it is not one, or over a limit.
    """
    return read(data, PAYLOAD_TYPE, what, max_bytes=MAX_ROOT_BYTES)


def verify(data: bytes, what: str = NAME) -> Root:
    """Return the root in ``data``, which must carry its own threshold of root keys.

    Raises:
        SignatureError: too few of its root keys signed it.
        ManifestError: it is malformed or over a limit.
    """
    envelope = open_envelope(data, what)
    root = parse(envelope.payload, what)
    _require(root, envelope, what, "its own")
    return root


def step(old: Root, data: bytes, what: str = NAME) -> Root:
    """Return the version after ``old``, which must carry the thresholds of both.

    TUF, section 5.3.4 and 5.3.5.

    Raises:
        SignatureError: a threshold is not reached, or it is not the version after ``old``.
        ManifestError: it is malformed or over a limit.
    """
    envelope = open_envelope(data, what)
    new = parse(envelope.payload, what)
    if new.version != old.version + 1 or new.first != old.identity:
        raise SignatureError(
            f"{what} is not version {old.version + 1} of the root that is trusted here; "
            "get it again from the publisher."
        )
    _require(old, envelope, what, f"version {old.version}'s")
    _require(new, envelope, what, "its own")
    return new


def follow(path: Path) -> Root:
    """Return the newest root reached, version by version, from the one in ``path``.

    The versions after it lie beside it as ``N.root.json``. Files of another root are not looked at.

    Raises:
        InputError: ``path`` cannot be read, or the newest (``root.json``) lies there while a
            version between is missing.
        SignatureError: a version does not carry the thresholds that it must.
        ManifestError: a version is malformed or over a limit.
    """
    trusted = verify(read_file(path), str(path))
    for _ in range(MAX_STEPS):
        following = path.with_name(f"{trusted.version + 1}.{NAME}")
        if not following.is_file() or not _is_of(trusted, following):
            break
        trusted = step(trusted, read_file(following), str(following))
    newest = path.with_name(NAME)
    if newest == path or not newest.is_file() or not _is_of(trusted, newest):
        return trusted
    version = parse(open_envelope(read_file(newest)).payload).version
    if version == trusted.version + 1:
        return step(trusted, read_file(newest), str(newest))
    if version > trusted.version:
        raise InputError(
            f"{newest} is version {version}, and {trusted.version + 1}.{NAME}, by which it could "
            "be trusted, is not beside it; get it from the publisher."
        )
    return trusted


def parse(data: bytes, what: str = NAME) -> Root:
    """Read a root's payload; nothing is verified.

    Raises:
        ManifestError: it is malformed, names a key wrongly or twice, or is over a limit.
    """
    content = strict_json.loads(data, what, max_bytes=MAX_ROOT_BYTES)
    if field(content, "type", str, what) != "root" or content.get("schema") != SCHEMA:
        raise ManifestError(f"{what} is of a form that this version does not know.")
    version = field(content, "version", int, what)
    if not 1 <= version <= MAX_VERSION:
        raise ManifestError(f"{what}: `version` is not between 1 and 2^31.")
    first = content.get("first")
    if (first is None) != (version == 1) or (
        first is not None and not _KEYID.fullmatch(field(content, "first", str, what))
    ):
        raise ManifestError(f"{what}: `first` does not name version 1.")
    keys = _keys(field(content, "keys", dict, what), what)
    listed = field(content, "roles", dict, what)
    roles = {name: _role(name, field(listed, name, dict, what), keys, what) for name in ROLES}
    revoked = {
        keyid: Revoked(
            role=field(one, "role", str, what)[:20],
            reason=names.shown(field(one, "reason", str, what))[:300],
            at=time_field(one, "at", what),
        )
        for keyid, one in field(content, "revoked", dict, what).items()
    }
    if any(keyid in revoked for role in roles.values() for keyid in role.keyids):
        raise ManifestError(f"{what}: a revoked key is still listed for a role.")
    return Root(
        version=version,
        first=first,
        issued_at=time_field(content, "issued", what),
        expires_at=time_field(content, "expires", what),
        keys=keys,
        roles=roles,
        revoked=revoked,
        digest=hashlib.sha256(data).hexdigest(),
    )


def read_file(path: Path) -> bytes:
    """Return the bytes of ``path``, at most one more than a root may have.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_ROOT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _require(root: Root, envelope: Envelope, what: str, whose: str) -> None:
    """Refuse an envelope that lacks the threshold of ``root``'s root keys."""
    missing = root.missing("root", envelope)
    if missing:
        threshold = root.roles["root"].threshold
        raise SignatureError(
            f"{what} carries {threshold - missing} of the {threshold} signatures that {whose} "
            "root keys must give; get it again from the publisher."
        )


def _is_of(root: Root, path: Path) -> bool:
    """Tell whether ``path`` claims to be a version of the same root."""
    what = str(path)
    return parse(open_envelope(read_file(path), what).payload, what).identity == root.identity


def _keys(listed: Mapping[str, Any], what: str) -> dict[str, PublicKey]:
    if len(listed) > MAX_KEYS:
        raise ManifestError(f"{what} lists more than {MAX_KEYS} keys.")
    keys = {}
    for keyid, entry in listed.items():
        key = load_public(_ascii(field(entry, "public", str, what)), f"{what}: a key")
        if key_id(key) != keyid:  # so that no key can be counted twice under two names
            raise ManifestError(f"{what}: a key is not the one that its id names.")
        keys[keyid] = key
    return keys


def _role(name: str, entry: Any, keys: Mapping[str, PublicKey], what: str) -> Role:
    keyids = field(entry, "keyids", list, what)
    threshold = field(entry, "threshold", int, what)
    named = {keyid for keyid in keyids if isinstance(keyid, str)}
    if len(named) != len(keyids) or not named <= keys.keys():
        raise ManifestError(f"{what}: the {name} role names a key twice, or one that is not there.")
    if not 1 <= threshold <= len(keyids):
        raise ManifestError(f"{what}: the {name} role's threshold cannot be reached.")
    if name == "release":
        if threshold != 1:
            raise ManifestError(f"{what}: a manifest has one signature, so its threshold is 1.")
        if any(kind_of(keys[keyid]) != KIND_P256 for keyid in keyids):
            raise ManifestError(f"{what}: a release key is not a P-256 key.")
    return Role(tuple(keyids), threshold)


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")  # what is not ASCII is no PEM text either
