"""Signed documents of our own: JSON in a DSSE envelope with one signature or several.

    {"payload": BASE64, "payloadType": TYPE, "signatures": [{"keyid": HEX, "sig": BASE64}, …]}

DSSE protocol 1.0.0. The payload is signed exactly as it lies there, so nothing is canonicalized.
Keys are Ed25519 (RFC 8032) or ECDSA P-256 with SHA-256 and DER signatures; a key's id is the
SHA-256 of its PEM text, the name that it also has as hint of an OMS bundle.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from . import dsse, names, strict_json
from .errors import ManifestError

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MAX_SIGNATURES = 64
KIND_ED25519, KIND_P256 = "Ed25519", "P-256"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and the signatures that came with it, by the id of the key that each names."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]

    def signers(self, keys: Mapping[str, PublicKey]) -> frozenset[str]:
        """Return which of ``keys`` signed the payload; each counts once."""
        signed = dsse.pae(self.payload, self.payload_type)
        return frozenset(
            keyid
            for keyid, signature in self.signatures
            if keyid in keys and _holds(keys[keyid], signature, signed)
        )

    def signed_by(self, keys: Iterable[PrivateKey]) -> "Envelope":
        """Return the envelope with a signature of each of ``keys``, instead of an older one."""
        signed = dsse.pae(self.payload, self.payload_type)
        made = {key_id(key.public_key()): _sign(key, signed) for key in keys}
        kept = [pair for pair in self.signatures if pair[0] not in made]
        return Envelope(self.payload, self.payload_type, (*kept, *made.items()))

    def with_signatures_of(self, other: "Envelope") -> "Envelope":
        """Return the envelope with those signatures of ``other`` that it lacks."""
        have = {keyid for keyid, _ in self.signatures}
        more = tuple(pair for pair in other.signatures if pair[0] not in have)
        return Envelope(self.payload, self.payload_type, self.signatures + more)

    def as_bytes(self) -> bytes:
        """Return the envelope as JSON, one line."""
        content = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": keyid, "sig": base64.b64encode(signature).decode()}
                for keyid, signature in self.signatures
            ],
        }
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def key_id(key: PublicKey) -> str:
    """Return the name of ``key``: SHA-256 hex of its PEM text."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def kind_of(key: object) -> str | None:
    """Return the kind of ``key``, public or private, or None where it signs no document here."""
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return KIND_ED25519
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return KIND_P256 if isinstance(key.curve, ec.SECP256R1) else None
    return None


def public_pem(key: PublicKey) -> bytes:
    """Return the PEM text of ``key``, final newline included."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_public(pem: bytes, what: str) -> PublicKey:
    """Return the public key in ``pem``.

    Raises:
        ManifestError: it is no public key, or neither Ed25519 nor P-256; ``what`` names it.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ManifestError(f"{what} is not a PEM public key.") from None
    if not isinstance(key, PublicKey) or kind_of(key) is None:
        raise ManifestError(f"{what} is neither an Ed25519 nor a P-256 key.")
    return key


def load_private(pem: bytes, what: str) -> PrivateKey:
    """Return the unencrypted private key in ``pem``.

    Raises:
        ManifestError: it is none, encrypted, or neither Ed25519 nor P-256; ``what`` names it.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ManifestError(f"{what} is encrypted; give a key without a passphrase.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ManifestError(f"{what} is not a PEM private key.") from None
    if not isinstance(key, PrivateKey) or kind_of(key) is None:
        raise ManifestError(f"{what} is neither an Ed25519 nor a P-256 key.")
    return key


def read(data: bytes, payload_type: str, what: str, *, max_bytes: int) -> Envelope:
    """Parse an envelope; no signature is checked yet.

    Raises:
        ManifestError: it is not an envelope of this type, or over a limit.
    """
    outer = strict_json.loads(data, what, max_bytes=max_bytes)
    if field(outer, "payloadType", str, what) != payload_type:
        raise ManifestError(f"{what} holds another type of document than {payload_type}.")
    listed = field(outer, "signatures", list, what)
    if len(listed) > MAX_SIGNATURES:
        raise ManifestError(f"{what} holds more than {MAX_SIGNATURES} signatures.")
    signatures = tuple(
        (field(one, "keyid", str, what), _base64(field(one, "sig", str, what), what))
        for one in listed
    )
    return Envelope(_base64(field(outer, "payload", str, what), what), payload_type, signatures)


def field(mapping: Any, key: str, kind: type, what: str) -> Any:
    """Return ``mapping[key]``, which must be there and of ``kind``.

    Raises:
        ManifestError: it is not; ``what`` names the document.
    """
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        shown = names.shown(key[:80])
        raise ManifestError(f"{what}: the field `{shown}` is missing or of the wrong type.")
    return value


def time_field(mapping: Any, key: str, what: str) -> datetime:
    """Return ``mapping[key]`` as an aware time (ISO 8601 with its offset from UTC).

    Raises:
        ManifestError: it is not one.
    """
    text = field(mapping, key, str, what)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ManifestError(f"{what}: `{key}` is not an ISO 8601 time with its offset from UTC.")
    return time


def _holds(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _sign(key: PrivateKey, signed: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    return key.sign(signed, ec.ECDSA(hashes.SHA256()))


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ManifestError(f"{what} holds text that is not base64.") from None
