"""What a bundle signs: an in-toto Statement v1 that lists a model.

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": "m", "digest": {"sha256": ROOT}}],
     "predicateType": "https://model_signing/signature/v1.0",
     "predicate": {"serialization": {"method", "hash_type", "allow_symlinks", …},
                   "resources": [{"name", "algorithm", "digest"}, …]}}

OMS specification 1.0, sections 5 and 6; ROOT is the SHA-256 over the raw digests of the resources.
Version 0.2.0 of the reference tool listed files as subjects under another predicate type, with no
root: read, and never written.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from typing import Any

from . import names, strict_json
from .errors import ManifestError, SignatureError
from .serialization import MAX_RESOURCES, Resource, Serialization
from .trust import Signer

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PREDICATE_TYPE_0_2_0 = "https://model_signing/Digests/v0.1"

GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
"""What the reference tool always skips at the top of a model: never to be listed."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a verified bundle says.

    ``digest`` is the SHA-256 of the signed bytes; ``signed_by`` is the hint of the key, or whom
    the certificate names; ``anchor`` is what the trust in the signer rests on, the same when keys
    or certificates below it change.
    """

    name: str
    resources: tuple[Resource, ...]
    digest: str
    signed_by: str
    predicate_type: str
    ignore_paths: tuple[str, ...]
    anchor: str = ""
    serialization: Serialization = default(default_factory=Serialization)


def write(resources: Sequence[Resource], name: str, ignore_paths: Sequence[str]) -> bytes:
    """Return the bytes to sign: model ``name`` consists of ``resources``, whole in SHA-256.

    Raises:
        ManifestError: no file, or a name that is outside the folder, twice, or always skipped.
    """
    if not resources:
        raise ManifestError("A model without a file cannot be signed.")
    if not name:
        raise ManifestError("A model without a name cannot be signed.")
    ordered = sorted(resources, key=lambda resource: resource.name)
    _check_names([resource.name for resource in ordered])
    for resource in ordered:
        if resource.name.split("/")[0] in GIT_PATHS:
            raise ManifestError(f"{resource.name} cannot be signed: verifiers skip git's files.")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _root(r.sha256 for r in ordered)}}],
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
    return json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()


def read(payload: bytes, signer: Signer, *, deprecated: bool = False) -> Statement:
    """Parse bytes that ``signer`` signed as a Statement v1 with the OMS 1.0 predicate.

    With ``deprecated``, that of 0.2.0 is read too.

    Raises:
        ManifestError: they are something else, contradict themselves, or are over a limit.
    """
    statement = _load(payload)
    if deprecated and statement["predicateType"] == PREDICATE_TYPE_0_2_0:
        return read_0_2_0(payload, signer)
    if statement["predicateType"] != PREDICATE_TYPE:
        raise ManifestError("The signed statement has an unknown predicateType.")
    subjects = field(statement, "subject", list)
    if len(subjects) != 1:
        raise ManifestError("The signed statement must have exactly one subject.")
    name = field(subjects[0], "name", str)
    if not name:
        raise ManifestError("The signed statement's subject has no name.")
    predicate = field(statement, "predicate", dict)
    if set(predicate) - {"serialization", "resources"}:
        raise ManifestError("The signed predicate has a field that OMS 1.0 does not know.")
    fields = field(predicate, "serialization", dict)
    serialization = Serialization.read(fields)
    rows = [
        (field(r, "name", str), field(r, "algorithm", str), field(r, "digest", str))
        for r in _bounded(field(predicate, "resources", list))
    ]
    resources = serialization.resources(rows)
    _check_names([resource.name for resource in resources])
    # The specification sorts by name, the reference tool by the parts of the name.
    in_order = (digest for _, _, digest in rows)
    by_name = (digest for _, _, digest in sorted(rows))
    if field(field(subjects[0], "digest", dict), "sha256", str) not in map(
        _root, (in_order, by_name)
    ):
        raise ManifestError(
            "The signed statement contradicts itself: its root digest is not its files'."
        )
    return Statement(
        name=name,
        resources=resources,
        digest=hashlib.sha256(payload).hexdigest(),
        signed_by=signer.signed_by,
        predicate_type=PREDICATE_TYPE,
        ignore_paths=_ignore_paths(fields.get("ignore_paths", [])),
        anchor=signer.anchor,
        serialization=serialization,
    )


def read_0_2_0(payload: bytes, signer: Signer) -> Statement:
    """Parse signed bytes of model_signing 0.2.0.

    Raises:
        SignatureError: they are of a later form, which was never signed as 0.2.0 did.
        ManifestError: they are malformed or over a limit.
    """
    statement = _load(payload)
    if statement["predicateType"] != PREDICATE_TYPE_0_2_0:
        raise SignatureError("The manifest's signature is of a form that only version 0.2.0 used.")
    resources = Serialization().resources(
        (field(s, "name", str), "sha256", field(field(s, "digest", dict), "sha256", str))
        for s in _bounded(field(statement, "subject", list))
    )
    _check_names([resource.name for resource in resources])
    return Statement(
        name="unnamed model",
        resources=resources,
        digest=hashlib.sha256(payload).hexdigest(),
        signed_by=signer.signed_by,
        predicate_type=PREDICATE_TYPE_0_2_0,
        ignore_paths=GIT_PATHS,
        anchor=signer.anchor,
    )


def field(mapping: Any, key: str, kind: type) -> Any:
    """Return the value of ``key``, which must be of ``kind``.

    Raises:
        ManifestError: it is not, or ``mapping`` is no object.
    """
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind):
        raise ManifestError(f"The manifest's field `{key}` is missing or of the wrong type.")
    return value


def _load(payload: bytes) -> dict[str, Any]:
    statement = strict_json.loads(payload, "The signed statement")
    if field(statement, "_type", str) != STATEMENT_TYPE:
        raise ManifestError("What was signed is not an in-toto Statement v1.")
    field(statement, "predicateType", str)
    return dict(statement)


def _ignore_paths(listed: object) -> tuple[str, ...]:
    """Return the names to skip; what is no name inside the model can match nothing in it."""
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        raise ManifestError("The signed statement's ignore_paths is not a list of names.")
    inside = [path.rstrip("/") for path in listed]
    return tuple(p for p in inside if p and not p.startswith("/") and ".." not in p.split("/"))


def _check_names(listed: Sequence[str]) -> None:
    """Refuse a list with a name twice, or with ``.`` beside other names."""
    seen: set[str] = set()
    for name in listed:
        if names.safe(name) in seen:
            raise ManifestError(f"The manifest lists {names.shown(name[:80])!r} twice.")
        seen.add(names.safe(name))
    if "." in seen and len(seen) > 1:
        raise ManifestError("The manifest lists `.`, which only a model of a single file may.")


def _bounded(listed: list[Any]) -> list[Any]:
    if not listed:
        raise ManifestError("The manifest lists no file.")
    if len(listed) > MAX_RESOURCES:
        raise ManifestError(f"The manifest lists more than {MAX_RESOURCES:,} files.")
    return listed


def _root(digests: Iterable[str]) -> str:
    """Return the subject's digest: SHA-256 over the raw digests in the order given."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
