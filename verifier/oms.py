"""OpenSSF Model Signing bundles: one signature over the digests of every file of a model.

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint": HEX}, "tlogEntries": []},
     "dsseEnvelope": {"payload": BASE64, "payloadType": "application/vnd.in-toto+json",
                      "signatures": [{"sig": BASE64, "keyid": ""}]}}

OMS specification 1.0; Sigstore bundle v0.3; the payload is in statement.py. Who signed is a public
key, an ``x509CertificateChain`` (certificates.py), or a ``certificate`` of Sigstore's
(sigstore_bundles.py). Reading is stricter than the reference tool: bytes are verified before they
are parsed, duplicate keys and names are refused, and the subject's digest is recomputed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import dsse, names, statement, strict_json
from .dsse import key_hint
from .errors import ManifestError, SignatureError
from .serialization import MAX_RESOURCES, Resource
from .statement import (
    GIT_PATHS,
    PREDICATE_TYPE,
    PREDICATE_TYPE_0_2_0,
    STATEMENT_TYPE,
    Statement,
    field,
)
from .trust import Signer, Trust, TrustedKey

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

__all__ = [
    "GIT_PATHS",
    "MAX_RESOURCES",
    "PREDICATE_TYPE",
    "PREDICATE_TYPE_0_2_0",
    "STATEMENT_TYPE",
    "Resource",
    "Statement",
    "key_hint",
]

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_TYPES = (BUNDLE_TYPE, "application/vnd.dev.sigstore.bundle+json;version=0.3")

IGNORE_PATHS = (*GIT_PATHS, ".cache/huggingface")
"""What our statements say to skip: also what the Hugging Face client leaves in a download."""

MAX_BUNDLE_BYTES = 24 << 20

_MATERIALS = ("publicKey", "x509CertificateChain", "certificate")


def sign(
    resources: Sequence[Resource],
    name: str,
    key: EllipticCurvePrivateKey,
    ignore_paths: Sequence[str] = IGNORE_PATHS,
    chain: Sequence[x509.Certificate] = (),
) -> bytes:
    """Return a bundle, signed with ``key``, that says model ``name`` consists of ``resources``.

    With ``chain``, the certificate of ``key`` and those above it, the bundle holds these instead
    of the key's name.

    Raises:
        ManifestError: no file, a name outside the folder or twice, or a key no OMS verifier takes,
            or one that is not the first certificate's.
    """
    if not dsse.is_supported(key):
        raise ManifestError("Only P-256, P-384 and P-521 keys sign bundles that others accept.")
    payload = statement.write(resources, name, ignore_paths)
    material: dict[str, Any] = {"publicKey": {"hint": key_hint(key.public_key())}}
    if chain:
        if chain[0].public_key() != key.public_key():
            raise ManifestError("The signing certificate is not that of the private key.")
        from cryptography.hazmat.primitives.serialization import Encoding

        encoded = [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in chain]
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": e} for e in encoded]}}
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {**material, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": dsse.PAYLOAD_TYPE,
            "signatures": [
                {"sig": base64.b64encode(dsse.sign(payload, key)).decode(), "keyid": ""}
            ],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode() + b"\n"


def verify(bundle: bytes, trust: Trust, at: datetime | None = None) -> Statement:
    """Return what ``bundle`` says if somebody in ``trust`` signed it.

    Certificates must be valid ``at`` that time (default: now).

    Raises:
        SignatureError: the signature does not hold, or its signer is not in ``trust``.
        ManifestError: the bundle, or what was signed, is malformed or over a limit.
        InputError: it is signed with Sigstore, which is not installed.
    """
    outer = strict_json.loads(bundle, "The signature bundle", max_bytes=MAX_BUNDLE_BYTES)
    if field(outer, "mediaType", str) not in BUNDLE_TYPES:
        raise ManifestError(
            "The signature bundle has an unknown mediaType; it is not an OMS bundle."
        )
    if set(outer) - {"mediaType", "verificationMaterial", "dsseEnvelope"}:
        raise ManifestError("The signature bundle has a field that OMS 1.0 does not know.")
    envelope = field(outer, "dsseEnvelope", dict)
    if field(envelope, "payloadType", str) != dsse.PAYLOAD_TYPE:
        raise ManifestError(
            "The signature bundle's payloadType is not that of an in-toto statement."
        )
    signatures = field(envelope, "signatures", list)
    if len(signatures) != 1:
        raise ManifestError("The signature bundle must hold exactly one signature.")
    payload = _base64(field(envelope, "payload", str), "payload")
    signature = _base64(field(signatures[0], "sig", str), "sig")
    material = field(outer, "verificationMaterial", dict)
    given = [kind for kind in _MATERIALS if material.get(kind) is not None]
    if len(given) != 1:
        raise ManifestError(
            "The signature bundle must name its signer by a key or by certificates, in one way."
        )
    if given == ["certificate"]:
        return _verify_sigstore(bundle, payload, trust)
    if given == ["publicKey"]:
        candidates = [(key.key, key.signer) for key in _keys(material["publicKey"], trust)]
    else:
        candidates = [_certified(material["x509CertificateChain"], trust, at)]
    for key, signer in candidates:
        if dsse.holds(signature, payload, key):
            return statement.read(payload, signer)
        if dsse.holds_0_2_0(signature, payload, key):
            return statement.read_0_2_0(payload, signer)
    raise SignatureError(
        "The manifest's signature does not hold: it was changed after it was signed, or another "
        "key signed it; get it again from the publisher."
    )


def _keys(public: object, trust: Trust) -> list[TrustedKey]:
    """Return the trusted keys that the bundle may mean: by hint, else all of them.

    Releases before 1.1 wrote the key itself (``rawBytes``). That is no reason to trust it: it must
    be among those that are.
    """
    if not trust.keys:
        raise SignatureError(
            "The manifest is signed by a key, and no key is trusted here; ask its publisher for "
            "the public key and give it with --trusted-key."
        )
    hint = public.get("hint") or "" if isinstance(public, dict) else None
    if not isinstance(hint, str):
        raise ManifestError("The signature bundle's key hint is not text.")
    if not hint:
        return list(trust.keys)
    named = [key for key in trust.keys if key.hint == hint]
    if not named:
        raise SignatureError(
            f"The manifest is signed by a key that is not trusted here "
            f"({names.shown(hint[:16])}…); ask its publisher for the public key and give it "
            "with --trusted-key."
        )
    return named


def _certified(
    material: object, trust: Trust, at: datetime | None
) -> tuple[EllipticCurvePublicKey, Signer]:
    """Return the key that the bundle's certificates speak for, as a trusted authority says."""
    if not trust.authorities:
        raise SignatureError(
            "The manifest is signed by certificate, and no certificate authority is trusted here; "
            "get the publisher's authority certificate from them and give it with --trusted-key."
        )
    from . import certificates

    encoded = [
        _base64(field(certificate, "rawBytes", str), "certificate")
        for certificate in field(material, "certificates", list)
    ]
    chain = certificates.load_chain(encoded)
    return certificates.signer_of(chain, trust.authorities, at or datetime.now(UTC))


def _verify_sigstore(bundle: bytes, payload: bytes, trust: Trust) -> Statement:
    if trust.identity is None:
        raise SignatureError(
            "The manifest is signed by an identity (Sigstore); say whose it must be with "
            "--identity and --identity-provider."
        )
    from . import sigstore_bundles

    signer = sigstore_bundles.signer_of(bundle, payload, trust.identity)
    # Version 0.2.0 left signing by identity to the library, which encodes as DSSE says.
    return statement.read(payload, signer, deprecated=True)


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ManifestError(f"The signature bundle's {what} is not base64.") from None
