"""Whom this machine trusts: public keys, certificate authorities, one Sigstore identity.

All of it was installed or named beforehand by the person who verifies; nothing of it ever comes
with a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import dsse

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from .latest import TrustedRoot


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, and what the trust in them rests on: the same when a key below it changes."""

    signed_by: str
    anchor: str


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key whose signatures count here; ``hint`` names it in bundles.

    ``anchor`` names what the trust rests on, for what is remembered across runs: the key itself,
    or what vouched for it.
    """

    key: ec.EllipticCurvePublicKey
    hint: str
    path: Path | None = None
    anchor: str = ""

    @property
    def signer(self) -> Signer:
        """Who signed where this key did."""
        return Signer(self.hint, self.anchor or self.hint)


@dataclass(frozen=True, slots=True)
class SigstoreIdentity:
    """Whom a Sigstore certificate must name, and the OpenID provider that vouched for them."""

    identity: str
    provider: str
    staging: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """All that is trusted in one run; a signature by any of it counts.

    The release keys that ``roots`` name are among ``keys``; a root says what is newest and revoked.
    """

    keys: tuple[TrustedKey, ...] = ()
    authorities: tuple[x509.Certificate, ...] = ()
    identity: SigstoreIdentity | None = None
    roots: tuple[TrustedRoot, ...] = ()

    @classmethod
    def in_keys(cls, *keys: ec.EllipticCurvePublicKey) -> Trust:
        """Trust these public keys and nothing else."""
        return cls(tuple(TrustedKey(key, dsse.key_hint(key)) for key in keys))

    @classmethod
    def union(cls, parts: Iterable[Trust]) -> Trust:
        """Trust all that any of ``parts`` trusts; the last identity counts."""
        given = list(parts)
        return cls(
            keys=tuple(key for part in given for key in part.keys),
            authorities=tuple(c for part in given for c in part.authorities),
            roots=tuple(root for part in given for root in part.roots),
            identity=next((p.identity for p in reversed(given) if p.identity), None),
        )

    def __bool__(self) -> bool:
        return bool(self.keys or self.authorities or self.identity)
