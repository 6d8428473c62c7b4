"""The portal's keys, and the root that says what each may sign (verifier/roots.py).

    keys/N.root.json       every version of the root; the highest is in force
    keys/root.json         a copy of it, for people and for the verifier
    keys/draft.root.json   the version after it, while it waits for signatures from elsewhere
    keys/ROLE.pem          the private key in use for root, release and latest, mode 0600
    keys/ROLE.next.pem     one made for a version that is not in force yet
    keys/release.pub.pem   the public half of the release key in use

A change is one link of ``N.root.json``. What a change that was interrupted left to do (put a new
key in the place of the old, write root.json again) is done by whoever looks next.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from django.conf import settings
from django.db import transaction

from portal.audit.chain import record
from verifier import roots
from verifier.envelopes import (
    KIND_P256,
    Envelope,
    PrivateKey,
    PublicKey,
    key_id,
    kind_of,
    load_private,
    public_pem,
)
from verifier.errors import ManifestError, VerifierError
from verifier.keys import RELEASE_PUBLIC, private_pem, replace_file, write_once
from verifier.roots import ROLES, Revoked, Role, Root

LIFETIME = timedelta(days=5 * 365)
SHORTEST_ID = 8  # digits by which a person may name a key


class KeyringError(Exception):
    """The keys cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version of the root that was made; ``missing`` says which signatures it waits for."""

    root: Root
    missing: str = ""

    @property
    def in_force(self) -> bool:
        """Whether it counts already."""
        return not self.missing


@dataclass(slots=True)
class Plan:
    """What the next version will say; ``made`` are private keys that come into use with it."""

    keys: dict[str, PublicKey]
    keyids: dict[str, list[str]]
    thresholds: dict[str, int]
    revoked: dict[str, Revoked]
    made: dict[str, PrivateKey] = field(default_factory=dict)

    @classmethod
    def after(cls, root: Root) -> "Plan":
        """Begin with what ``root`` says."""
        return cls(
            keys=dict(root.keys),
            keyids={role: list(root.roles[role].keyids) for role in ROLES},
            thresholds={role: root.roles[role].threshold for role in ROLES},
            revoked=dict(root.revoked),
        )

    def put(self, role: str, key: PublicKey, *, in_use: bool) -> None:
        """List ``key`` for ``role``; the one in use is the last."""
        keyid = key_id(key)
        if keyid in self.revoked:
            raise KeyringError(f"{keyid[:16]}… was revoked; make another key.")
        if any(keyid in listed for listed in self.keyids.values()):
            raise KeyringError(f"{keyid[:16]}… has a role already; one key has one role.")
        self.keys[keyid] = key
        self.keyids[role].insert(len(self.keyids[role]) if in_use else 0, keyid)

    def payload(self, old: Root | None, at: datetime) -> bytes:
        """Return the bytes of the version after ``old``."""
        roles = {role: Role(tuple(self.keyids[role]), self.thresholds[role]) for role in ROLES}
        listed = [self.keys[keyid] for role in roles.values() for keyid in role.keyids]
        return roots.payload(
            version=old.version + 1 if old else 1,
            first=old.identity if old else None,
            issued_at=at,
            expires_at=at + LIFETIME,
            keys=listed,
            roles=roles,
            revoked=self.revoked,
        )


def folder() -> Path:
    """Return where the portal's keys lie."""
    return Path(settings.DATA) / "keys"


def root_file() -> Path:
    """Return where the root in force lies, for the verifier; `current` sees that it is there."""
    return folder() / roots.NAME


def current(*, by: str, at: datetime) -> Root:
    """Return the root in force; version 1 is made, with its keys, where there is none.

    Raises:
        KeyringError: the keys or the root cannot be read or used.
    """
    with locked(by=by, at=at) as root:
        return root


@contextmanager
def locked(*, by: str, at: datetime) -> Iterator[Root]:
    """Give the root in force, which no other process changes meanwhile.

    Never inside a transaction: whoever changes a key takes this lock first, and then the database.
    """
    with _locked():
        yield _current(by=by, at=at)


def envelope_of(version: int) -> bytes | None:
    """Return a version of the root as it was signed, or None where there is none."""
    try:
        return (folder() / f"{version}.{roots.NAME}").read_bytes()
    except FileNotFoundError:
        return None


def private_key(role: str, root: Root) -> PrivateKey:
    """Return the private key in use for ``role``, which ``root`` must name.

    Raises:
        KeyringError: it is not there, cannot be read, or is not one that the root names.
    """
    path = folder() / f"{role}.pem"
    key = _load(path)
    if key is None:
        raise KeyringError(f"{path} is not there; bring it back, or run `keys rotate {role}`.")
    if key_id(key.public_key()) not in root.roles[role].keyids:
        raise KeyringError(f"{path} is not a key that the root names for it; bring that back.")
    return key


def release_key(*, by: str, at: datetime) -> ec.EllipticCurvePrivateKey:
    """Return the key that signs manifests now.

    Raises:
        KeyringError: there is none that the root names.
    """
    key = private_key("release", current(by=by, at=at))
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # a root names no other for this role
    return key


def held(role: str, keyid: str) -> bool:
    """Tell whether this portal holds the private half of a key."""
    return keyid in _held(role)


def plan_after(root: Root) -> Plan:
    """Return a plan that changes nothing of the root in force yet; `locked` gives that.

    Raises:
        KeyringError: a version waits for signatures already.
    """
    if _draft_file().exists():
        raise KeyringError(
            f"Version {root.version + 1} of the root waits for signatures: bring them with "
            "`keys sign-root FILE`, or drop it with `keys root --discard`."
        )
    return Plan.after(root)


def make_key(plan: Plan, role: str) -> PrivateKey:
    """Add a new key of the portal's own to ``plan``, in use for ``role`` from then on.

    One that was made for a change which never came into force is taken again.
    """
    path = folder() / f"{role}.next.pem"
    write_once(path, private_pem(_new(role)), 0o600)
    key = _load(path)
    assert key is not None
    plan.put(role, key.public_key(), in_use=True)
    plan.made[role] = key
    return key


def seal(old: Root, plan: Plan, *, action: str, by: str, at: datetime, **detail: str) -> Change:
    """Sign what is planned with the root keys held here; bring it into force if they suffice.

    The event is committed first: a root that is not in the audit never comes into force.

    Raises:
        KeyringError: the plan's thresholds cannot be reached by its own keys.
    """
    for role, threshold in plan.thresholds.items():
        if not 1 <= threshold <= len(plan.keyids[role]):
            raise KeyringError(
                f"The {role} role would have {len(plan.keyids[role])} keys and a threshold of "
                f"{threshold}, which could never be reached; add a key first."
            )
    envelope = Envelope(plan.payload(old, at), roots.PAYLOAD_TYPE, ())
    new = roots.parse(envelope.payload)
    wanted = {*old.roles["root"].keyids, *new.roles["root"].keyids}
    envelope = envelope.signed_by(key for keyid, key in _held("root").items() if keyid in wanted)
    with transaction.atomic():
        record(action, subject=f"root:{new.version}", actor=by, at=at, root=new.digest, **detail)
    return _install(old, envelope, by=by, at=at)


def draft() -> Envelope | None:
    """Return the version that waits for signatures, if one does."""
    try:
        return roots.open_envelope(_draft_file().read_bytes(), str(_draft_file()))
    except FileNotFoundError:
        return None


def bring_signatures(data: bytes, what: str, *, by: str, at: datetime) -> Change:
    """Add the signatures in ``data`` to the draft; bring it into force if they suffice.

    Raises:
        KeyringError: nothing waits, or what was signed is not what waits.
        VerifierError: ``data`` is no signed root.
    """
    brought = roots.open_envelope(data, what)
    with locked(by=by, at=at) as old:
        waiting = draft()
        if waiting is None:
            raise KeyringError("No version of the root waits for signatures.")
        if brought.payload != waiting.payload:
            raise KeyringError(f"{what} is not the version that waits; `keys root --draft` is.")
        new = roots.parse(waiting.payload)
        known = {*old.roles["root"].keyids, *new.roles["root"].keyids}
        keys = {**old.keys, **new.keys}
        good = brought.signers({keyid: keys[keyid] for keyid in known})
        kept = tuple(pair for pair in brought.signatures if pair[0] in good)
        added = Envelope(brought.payload, brought.payload_type, kept)
        return _install(old, waiting.with_signatures_of(added), by=by, at=at)


def discard(*, by: str, at: datetime) -> None:
    """Drop the version that waits for signatures."""
    with _locked():
        waiting = draft()
        if waiting is None:
            raise KeyringError("No version of the root waits for signatures.")
        version = roots.parse(waiting.payload).version
        with transaction.atomic():
            record("root.discarded", subject=f"root:{version}", actor=by, at=at)
        _draft_file().unlink()


@contextmanager
def _locked() -> Iterator[None]:
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder() / "keys.lock").open("w")
    except OSError as error:
        raise KeyringError(f"{folder()} cannot be written: {error.strerror}.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _draft_file() -> Path:
    return folder() / f"draft.{roots.NAME}"


def _newest_version() -> int:
    names = (path.name.partition(".")[0] for path in folder().glob(f"*.{roots.NAME}"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _current(*, by: str, at: datetime) -> Root:
    version = _newest_version()
    if not version:
        _make_first(by=by, at=at)
        version = 1
    path = folder() / f"{version}.{roots.NAME}"
    try:
        data = path.read_bytes()
        root = roots.verify(data, str(path))
        _settle(root, data)
    except VerifierError as error:
        raise KeyringError(str(error)) from error
    except OSError as error:
        raise KeyringError(f"{error.filename} cannot be used: {error.strerror}.") from error
    return root


def _make_first(*, by: str, at: datetime) -> None:
    """Make the keys that are missing, and version 1 of the root that names them."""
    plan = Plan({}, {role: [] for role in ROLES}, dict.fromkeys(ROLES, 1), {})
    made = {}
    for role in ROLES:
        path = folder() / f"{role}.pem"
        write_once(path, private_pem(_new(role)), 0o600)
        key = _load(path)
        assert key is not None
        if role == "release" and kind_of(key) != KIND_P256:
            raise KeyringError(f"{path} is not a P-256 key, the only kind every verifier takes.")
        plan.put(role, key.public_key(), in_use=True)
        made[role] = key
    envelope = Envelope(plan.payload(None, at), roots.PAYLOAD_TYPE, ()).signed_by([made["root"]])
    digest = roots.parse(envelope.payload).digest
    with transaction.atomic():
        record("root.made", subject="root:1", actor=by, at=at, root=digest)
    write_once(folder() / f"1.{roots.NAME}", envelope.as_bytes(), 0o644)


def _install(old: Root, envelope: Envelope, *, by: str, at: datetime) -> Change:
    """Bring the next version into force if it has its signatures, else let it wait for them."""
    new = roots.parse(envelope.payload)
    lacking = [
        f"{count} of version {root.version}'s root keys"
        for root in (old, new)
        if (count := root.missing("root", envelope))
    ]
    if lacking:
        replace_file(_draft_file(), envelope.as_bytes(), 0o644)
        return Change(new, " and ".join(lacking))
    data = envelope.as_bytes()
    roots.step(old, data)
    write_once(folder() / f"{new.version}.{roots.NAME}", data, 0o644)
    _settle(new, data)
    return Change(new)


def _settle(root: Root, data: bytes) -> None:
    """Do what follows from the root in force, where it is not done yet."""
    for role in ROLES:
        waiting = folder() / f"{role}.next.pem"
        key = _load(waiting)
        if key is not None and key_id(key.public_key()) in root.roles[role].keyids:
            waiting.replace(folder() / f"{role}.pem")
    _replace_if_other(folder() / roots.NAME, data)
    in_use = root.keys[root.roles["release"].keyids[-1]]
    _replace_if_other(folder() / RELEASE_PUBLIC, public_pem(in_use))
    waits = draft()
    if waits is not None and roots.parse(waits.payload).version <= root.version:
        _draft_file().unlink()


def _new(role: str) -> PrivateKey:
    if role == "release":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def _held(role: str) -> dict[str, PrivateKey]:
    """Return the private keys for ``role`` that lie here, by id."""
    found = (_load(path) for path in (folder() / f"{role}.pem", folder() / f"{role}.next.pem"))
    return {key_id(key.public_key()): key for key in found if key is not None}


def _load(path: Path) -> PrivateKey | None:
    try:
        return load_private(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyringError(f"{path} cannot be read: {error.strerror}.") from error
    except ManifestError as error:
        raise KeyringError(str(error)) from error


def _replace_if_other(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        replace_file(path, data, 0o644)
