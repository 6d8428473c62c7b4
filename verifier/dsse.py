"""Signatures over bytes: the DSSE envelope with ECDSA keys.

    PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload

DSSE protocol 1.0.0 (secure-systems-lab/dsse); curves and their hashes after the OMS specification
1.0: P-256 with SHA-256, P-384 with SHA-384, P-521 with SHA-512; signatures are DER (RFC 3279,
section 2.2.3).
"""

import hashlib
from collections.abc import Iterator

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PIECE = 1 << 20

_HASHES: dict[str, type[hashes.SHA256] | type[hashes.SHA384] | type[hashes.SHA512]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


def is_supported(key: object) -> bool:
    """Tell whether ``key`` is an EC key on a curve that every OMS verifier takes."""
    return (
        isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey)
        and key.curve.name in _HASHES
    )


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the PEM text of ``key`` as `cryptography` writes it, final newline included."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_hint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name of ``key`` in bundles: SHA-256 hex of its PEM text."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return what is signed: the pre-authentication encoding of ``payload``."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def pae_0_2_0(payload: bytes) -> Iterator[bytes]:
    """Yield, piece by piece, what model_signing 0.2.0 signed: the payload as Python prints bytes.

    To be accepted for that release's predicate type and nothing else, and never written. Printed
    at once, 16 MiB of odd bytes would take fifteen times as much memory.
    """
    quote = b'"' if b"'" in payload and b'"' not in payload else b"'"
    yield f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} b".encode() + quote
    # What stands before a piece makes Python choose the quotes that it chooses for the whole.
    before = b"'" if quote == b'"' else b"'\""
    skipped = len(repr(before + b"x")) - len("x'")
    for start in range(0, len(payload), _PIECE):
        piece = repr(before + payload[start : start + _PIECE])
        yield piece[skipped:-1].encode()
    yield quote


def sign(payload: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the DER signature of ``key`` over the encoding of ``payload``."""
    return key.sign(pae(payload), ec.ECDSA(_HASHES[key.curve.name]()))


def holds(signature: bytes, payload: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Tell whether ``signature`` over ``payload`` was made by ``key``."""
    return _verifies(key, signature, pae(payload), _HASHES[key.curve.name]())


def holds_0_2_0(signature: bytes, payload: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Tell whether ``signature`` is one of model_signing 0.2.0, which used SHA-256 on any curve."""
    digest = hashlib.sha256()
    for piece in pae_0_2_0(payload):
        digest.update(piece)
    return _verifies(key, signature, digest.digest(), utils.Prehashed(hashes.SHA256()))


def _verifies(
    key: ec.EllipticCurvePublicKey,
    signature: bytes,
    data: bytes,
    algorithm: hashes.HashAlgorithm | utils.Prehashed,
) -> bool:
    try:
        key.verify(signature, data, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True
