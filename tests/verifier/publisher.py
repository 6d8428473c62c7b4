"""A publisher with a root that changes, for the tests and for tests/vectors/root."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from verifier import latest, roots
from verifier.envelopes import Envelope, PrivateKey, key_id
from verifier.roots import Revoked, Role, Root

DAY = timedelta(days=1)
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ed25519_key() -> PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def p256_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Publisher:
    """Keys by role, and every version of the root so far, as bytes."""

    root: list[PrivateKey] = field(default_factory=lambda: [ed25519_key()])
    release: ec.EllipticCurvePrivateKey = field(default_factory=p256_key)
    latest_key: PrivateKey = field(default_factory=ed25519_key)
    threshold: int = 1
    expires_at: datetime = START + 36500 * DAY
    retired: list[ec.EllipticCurvePrivateKey] = field(default_factory=list)
    revoked: dict[str, Revoked] = field(default_factory=dict)
    roots: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.next(self.root)

    @property
    def newest(self) -> Root:
        return roots.parse(roots.open_envelope(self.roots[-1]).payload)

    def payload(self, **changed: object) -> bytes:
        """The version after the newest, as these keys would have it."""
        release = [*self.retired, self.release]
        first = self.newest.identity if self.roots else None
        content = {
            "version": len(self.roots) + 1,
            "first": first,
            "issued_at": START,
            "expires_at": self.expires_at,
            "keys": [key.public_key() for key in (*self.root, *release, self.latest_key)],
            "roles": {
                "root": Role(_ids(self.root), self.threshold),
                "release": Role(_ids(release), 1),
                "latest": Role(_ids([self.latest_key]), 1),
            },
            "revoked": self.revoked,
        }
        return roots.payload(**(content | changed))

    def next(self, signers: list[PrivateKey], **changed: object) -> bytes:
        """Make the next version, signed by ``signers``."""
        made = sealed(self.payload(**changed), signers)
        self.roots.append(made)
        return made

    def rotate_release(self) -> None:
        self.retired.append(self.release)
        self.release = p256_key()
        self.next(self.root)

    def revoke_release(self, reason: str) -> None:
        """Replace the release key by another, and say that it counts no longer."""
        self.revoked[key_id(self.release.public_key())] = Revoked("release", reason, START)
        self.release = p256_key()
        self.next(self.root)

    def rotate_root(self) -> None:
        old, self.root = self.root, [ed25519_key()]
        self.next([*old, *self.root])

    def latest(
        self, *, at: datetime | None = None, root: Root | None = None, **said: object
    ) -> bytes:
        at = at or datetime.now(UTC)
        told = {"newest": {}, "checkpoints": {}, "recalls": {}} | said
        return latest.sign(
            root or self.newest, [self.latest_key], issued_at=at, expires_at=at + 14 * DAY, **told
        )

    def write(self, folder: Path) -> Path:
        """Write every version as the portal serves them; return root.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(self.roots, 1):
            (folder / f"{number}.root.json").write_bytes(data)
        (folder / "root.json").write_bytes(self.roots[-1])
        return folder / "root.json"


def sealed(payload: bytes, signers: list[PrivateKey]) -> bytes:
    return Envelope(payload, roots.PAYLOAD_TYPE, ()).signed_by(signers).as_bytes()


def _ids(keys: list[PrivateKey]) -> tuple[str, ...]:
    return tuple(key_id(key.public_key()) for key in keys)
