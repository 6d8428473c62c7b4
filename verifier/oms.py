"""OpenSSF Model Signing bundles: one signature over the SHA-256 of every file of a model.

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint": HEX}, "tlogEntries": []},
     "dsseEnvelope": {"payload": BASE64, "payloadType": "application/vnd.in-toto+json",
                      "signatures": [{"sig": BASE64, "keyid": ""}]}}

OMS specification 1.0; Sigstore bundle v0.3; the payload is an in-toto Statement v1. Reading is
stricter than the reference tool: bytes are verified before they are parsed, duplicate keys and
names are refused, digests are lowercase, and the subject's digest is recomputed.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from . import dsse, names, strict_json
from .dsse import key_hint
from .errors import ManifestError, SignatureError
from .trust import Trust, TrustedKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_TYPES = frozenset(
    {BUNDLE_TYPE}
    | {f"application/vnd.dev.sigstore.bundle+json;version=0.{minor}" for minor in (1, 2, 3)}
)
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PREDICATE_TYPE_0_2_0 = "https://model_signing/Digests/v0.1"

GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
"""What the reference tool always skips at the top of a model: never to be listed."""
IGNORE_PATHS = (*GIT_PATHS, ".cache/huggingface")
"""What our statements say to skip: also what the Hugging Face client leaves in a download."""

MAX_BUNDLE_BYTES = 24 << 20
MAX_RESOURCES = 100_000

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Resource:
    """One signed file: POSIX name and SHA-256 in lowercase hex; its size is not signed."""

    name: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a verified bundle says.

    ``digest`` is the SHA-256 of the signed bytes, ``signed_by`` the hint of the key; ``anchor``
    names what the trust in the signer rests on, the same when its keys or certificates change.
    """

    name: str
    resources: tuple[Resource, ...]
    digest: str
    signed_by: str
    predicate_type: str
    ignore_paths: tuple[str, ...]
    anchor: str = ""


def sign(
    resources: Sequence[Resource],
    name: str,
    key: EllipticCurvePrivateKey,
    ignore_paths: Sequence[str] = IGNORE_PATHS,
) -> bytes:
    """Return a bundle, signed with ``key``, that says model ``name`` consists of ``resources``.

    Raises:
        ManifestError: no file, a name outside the folder or twice, or a key no OMS verifier takes.
    """
    if not dsse.is_supported(key):
        raise ManifestError("Only P-256, P-384 and P-521 keys sign bundles that others accept.")
    if not resources:
        raise ManifestError("A model without a file cannot be signed.")
    ordered = sorted(resources, key=lambda resource: resource.name)
    _check_names([resource.name for resource in ordered])
    for resource in ordered:
        if resource.name.split("/")[0] in GIT_PATHS:
            raise ManifestError(f"{resource.name} cannot be signed: verifiers skip git's files.")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(ordered)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(ignore_paths),
            },
            "resources": [
                {"name": r.name, "algorithm": "sha256", "digest": r.sha256} for r in ordered
            ],
        },
    }
    payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key_hint(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": dsse.PAYLOAD_TYPE,
            "signatures": [
                {"sig": base64.b64encode(dsse.sign(payload, key)).decode(), "keyid": ""}
            ],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode() + b"\n"


def verify(bundle: bytes, trust: Trust) -> Statement:
    """Return what ``bundle`` says if somebody in ``trust`` signed it.

    Raises:
        SignatureError: the signature does not hold, or its signer is not in ``trust``.
        ManifestError: the bundle, or what was signed, is malformed or over a limit.
    """
    outer = strict_json.loads(bundle, "The signature bundle", max_bytes=MAX_BUNDLE_BYTES)
    if _field(outer, "mediaType", str) not in BUNDLE_TYPES:
        raise ManifestError(
            "The signature bundle has an unknown mediaType; it is not an OMS bundle."
        )
    envelope = _field(outer, "dsseEnvelope", dict)
    if _field(envelope, "payloadType", str) != dsse.PAYLOAD_TYPE:
        raise ManifestError(
            "The signature bundle's payloadType is not that of an in-toto statement."
        )
    signatures = _field(envelope, "signatures", list)
    if len(signatures) != 1:
        raise ManifestError("The signature bundle must hold exactly one signature.")
    payload = _base64(_field(envelope, "payload", str), "payload")
    signature = _base64(_field(signatures[0], "sig", str), "sig")
    candidates = _candidates(_field(outer, "verificationMaterial", dict), trust)

    for trusted in candidates:
        if dsse.holds(signature, payload, trusted.key):
            return _read_statement(payload, trusted)
        if dsse.holds_0_2_0(signature, payload, trusted.key):
            return _read_statement_0_2_0(payload, trusted)
    raise SignatureError(
        "The manifest's signature does not hold: it was changed after it was signed, or another "
        "key signed it; get it again from the publisher."
    )


def _candidates(material: dict[str, Any], trust: Trust) -> list[TrustedKey]:
    """Return the trusted keys that the bundle may mean: by hint, by rawBytes, or all of them."""
    if "publicKey" not in material:
        raise SignatureError(
            "The manifest is signed by certificate, and no certificate authority is trusted here."
        )
    public = _field(material, "publicKey", dict)
    hint = public.get("hint") or ""
    if not isinstance(hint, str):
        raise ManifestError("The signature bundle's key hint is not text.")
    if hint:
        named = [key for key in trust.keys if key.hint == hint]
        if not named:
            raise SignatureError(
                f"The manifest is signed by a key that is not trusted here "
                f"({names.shown(hint)[:16]}…); ask its publisher for the public key and give it "
                "with --trusted-key."
            )
        return named
    return list(trust.keys)


def _read_statement(payload: bytes, signer: TrustedKey) -> Statement:
    """Parse signed bytes as an in-toto Statement v1 with the OMS 1.0 predicate."""
    statement = _load_statement(payload)
    if statement["predicateType"] != PREDICATE_TYPE:
        raise ManifestError("The signed statement has an unknown predicateType.")
    subjects = _field(statement, "subject", list)
    if len(subjects) != 1:
        raise ManifestError("The signed statement must have exactly one subject.")
    name = _field(subjects[0], "name", str)
    if not name:
        raise ManifestError("The signed statement's subject has no name.")
    predicate = _field(statement, "predicate", dict)
    serialization = _field(predicate, "serialization", dict)
    method, hash_type = serialization.get("method"), serialization.get("hash_type")
    if method != "files" or hash_type != "sha256":
        raise ManifestError(
            f"The signed statement lists {str(method)[:20]!a} in {str(hash_type)[:20]!a}; "
            "only whole files in SHA-256 are read."
        )
    ignored = serialization.get("ignore_paths", [])
    if not isinstance(ignored, list) or not all(isinstance(path, str) for path in ignored):
        raise ManifestError("The signed statement's ignore_paths is not a list of names.")
    listed = _field(predicate, "resources", list)
    resources = _read_resources(
        [
            (
                _field(r, "name", str),
                _field(r, "digest", str) if _field(r, "algorithm", str) == "sha256" else "",
            )
            for r in _bounded(listed)
        ]
    )
    if _field(_field(subjects[0], "digest", dict), "sha256", str) != _root(resources):
        raise ManifestError(
            "The signed statement contradicts itself: its root digest is not its files'."
        )
    return Statement(
        name=name,
        resources=resources,
        digest=hashlib.sha256(payload).hexdigest(),
        signed_by=signer.hint,
        anchor=signer.anchor or signer.hint,
        predicate_type=PREDICATE_TYPE,
        ignore_paths=tuple(ignored),
    )


def _read_statement_0_2_0(payload: bytes, signer: TrustedKey) -> Statement:
    """Parse signed bytes of model_signing 0.2.0, which listed files as subjects and had no root."""
    statement = _load_statement(payload)
    if statement["predicateType"] != PREDICATE_TYPE_0_2_0:
        raise SignatureError("The manifest's signature is of a form that only version 0.2.0 used.")
    subjects = _bounded(_field(statement, "subject", list))
    return Statement(
        name="unnamed model",
        resources=_read_resources(
            [
                (_field(s, "name", str), _field(_field(s, "digest", dict), "sha256", str))
                for s in subjects
            ]
        ),
        digest=hashlib.sha256(payload).hexdigest(),
        signed_by=signer.hint,
        anchor=signer.anchor or signer.hint,
        predicate_type=PREDICATE_TYPE_0_2_0,
        ignore_paths=GIT_PATHS,
    )


def _load_statement(payload: bytes) -> dict[str, Any]:
    statement = strict_json.loads(payload, "The signed statement")
    if _field(statement, "_type", str) != STATEMENT_TYPE:
        raise ManifestError("What was signed is not an in-toto Statement v1.")
    _field(statement, "predicateType", str)
    return dict(statement)


def _read_resources(pairs: Sequence[tuple[str, str]]) -> tuple[Resource, ...]:
    resources = []
    for name, digest in pairs:
        if not _SHA256.fullmatch(digest):
            raise ManifestError(
                f"The manifest's digest of {names.shown(name)[:80]!r} is not a lowercase SHA-256."
            )
        resources.append(Resource(names.safe(name), digest))
    _check_names([resource.name for resource in resources])
    return tuple(resources)


def _check_names(listed: Sequence[str]) -> None:
    """Refuse a list without files, with a name twice, or with ``.`` beside other names."""
    seen: set[str] = set()
    for name in listed:
        if names.safe(name) in seen:
            raise ManifestError(f"The manifest lists {names.shown(name)[:80]!r} twice.")
        seen.add(names.safe(name))
    if "." in seen and len(seen) > 1:
        raise ManifestError("The manifest lists `.`, which only a model of a single file may.")


def _bounded(listed: list[Any]) -> list[Any]:
    if not listed:
        raise ManifestError("The manifest lists no file.")
    if len(listed) > MAX_RESOURCES:
        raise ManifestError(f"The manifest lists more than {MAX_RESOURCES:,} files.")
    return listed


def _root(resources: Sequence[Resource]) -> str:
    """Return the subject's digest: SHA-256 over the raw digests in the order listed."""
    return hashlib.sha256(b"".join(bytes.fromhex(r.sha256) for r in resources)).hexdigest()


def _field(mapping: Any, key: str, kind: type) -> Any:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind):
        raise ManifestError(f"The manifest's field `{key}` is missing or of the wrong type.")
    return value


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ManifestError(f"The signature bundle's {what} is not base64.") from None
