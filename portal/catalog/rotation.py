"""Change keys: add one, put another in its place, revoke one. Each is a version of the root."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from portal.catalog import keyring
from portal.catalog.keyring import SHORTEST_ID, Change, KeyringError
from portal.catalog.models import Checkpoint
from portal.catalog.revisions import resign
from verifier import roots
from verifier.envelopes import KIND_P256, PublicKey, key_id, kind_of
from verifier.roots import ROLES, Revoked, Root

SIGNED_ELSEWHERE = {"release": "verifies only", "root": "signs elsewhere", "latest": "elsewhere"}


@dataclass(frozen=True, slots=True)
class Row:
    """One key, as `keys list` shows it; ``since`` is when a root first named it."""

    keyid: str
    kind: str
    role: str
    since: datetime
    state: str


def add(
    role: str, public: PublicKey, *, threshold: int | None = None, by: str, at: datetime
) -> Change:
    """List a key for ``role`` whose private half is elsewhere; ``threshold``: how many must sign.

    Raises:
        KeyringError: the key has a role, is of a kind that the role does not take, or the
            threshold could not be reached; or another version waits for signatures.
    """
    if role == "release" and kind_of(public) != KIND_P256:
        raise KeyringError("A release key is a P-256 key, the only kind every verifier takes.")
    if threshold is not None and role != "root":
        raise KeyringError("Only the root role has a threshold to be chosen; others have 1.")
    with keyring.locked(by=by, at=at) as root:
        plan = keyring.plan_after(root)
        plan.put(role, public, in_use=False)
        if threshold is not None:
            plan.thresholds[role] = threshold
        return keyring.seal(
            root, plan, action="key.added", by=by, at=at, key=key_id(public), role=role
        )


def rotate(role: str, *, by: str, at: datetime) -> Change:
    """Put a new key of the portal's own in the place of the one in use for ``role``.

    An old release key goes on verifying what it signed, until it is revoked; its private half
    is destroyed when the new one comes into use.

    Raises:
        KeyringError: a version waits for signatures, or the keys cannot be read.
    """
    with keyring.locked(by=by, at=at) as root:
        plan = keyring.plan_after(root)
        if role != "release":
            for keyid in [k for k in plan.keyids[role] if keyring.held(role, k)]:
                plan.keyids[role].remove(keyid)
        made = key_id(keyring.make_key(plan, role).public_key())
        return keyring.seal(root, plan, action="key.rotated", by=by, at=at, key=made, role=role)


def revoke(keyid: str, *, reason: str, by: str, at: datetime) -> Change | None:
    """Take every right from a key, named by its id or the beginning of it.

    A key of the portal's own is replaced at once. Returns None where it is revoked already.

    Raises:
        KeyringError: there is no such key, too few root keys would be left, or a version waits.
    """
    if not reason.strip():
        raise KeyringError("Say why the key is revoked; everyone who verifies will read it.")
    with keyring.locked(by=by, at=at) as root:
        full = _named(keyid, root)
        if full in root.revoked:
            return None
        plan = keyring.plan_after(root)
        role = next(role for role in ROLES if full in plan.keyids[role])
        plan.keyids[role].remove(full)
        plan.revoked[full] = Revoked(role, reason.strip()[:300], at)
        if keyring.held(role, full) or not plan.keyids[role]:
            keyring.make_key(plan, role)
        return keyring.seal(
            root, plan, action="key.revoked", by=by, at=at, key=full, role=role, reason=reason
        )


def resign_revoked(*, by: str, at: datetime) -> Iterator[Checkpoint]:
    """Sign anew each checkpoint version whose manifest only a revoked key signed.

    What an interrupted run left undone is done by the next.

    Raises:
        KeyringError, ResignError, StoreError: one cannot be signed; those before it are.
    """
    root = keyring.current(by=by, at=at)
    for checkpoint in Checkpoint.objects.filter(signed_by__in=list(root.revoked)):
        yield resign(checkpoint, by=by, at=at)


def table(*, by: str, at: datetime) -> tuple[Root, list[Row]]:
    """Return the root in force and every key that it names, and since when; the revoked too."""
    root = keyring.current(by=by, at=at)
    since: dict[str, datetime] = {}
    for version in range(1, root.version + 1):
        data = keyring.envelope_of(version)
        if data is not None:
            earlier = roots.parse(roots.open_envelope(data).payload)
            for keyid in earlier.keys:
                since.setdefault(keyid, earlier.issued_at)
    rows = []
    for role in ROLES:
        for keyid, key in root.keys_of(role).items():
            here = keyring.held(role, keyid)
            state = "in use" if here else SIGNED_ELSEWHERE[role]
            rows.append(Row(keyid, kind_of(key) or "", role, since[keyid], state))
    for keyid, one in root.revoked.items():
        began = since.get(keyid, one.at)
        rows.append(Row(keyid, "", one.role, began, f"revoked {one.at:%Y-%m-%d}: {one.reason}"))
    return root, rows


def _named(text: str, root: Root) -> str:
    """Return the full id that ``text`` begins."""
    found = [keyid for keyid in (*root.keys, *root.revoked) if keyid.startswith(text)]
    if len(text) < SHORTEST_ID or not found:
        raise KeyringError(
            f"{text[:64]!r} names no key of the root; give its id from `keys list`, at least "
            f"{SHORTEST_ID} digits."
        )
    if len(found) > 1:
        raise KeyringError(f"{text!r} names {len(found)} keys; give more digits.")
    return found[0]
