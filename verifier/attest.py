"""A signed verdict for policy engines: in-toto's Simple Verification Result in a DSSE envelope.

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": FILE, "digest": {"sha256": HEX}}, …],
     "predicateType": "https://in-toto.io/attestation/svr/v0.1",
     "predicate": {"verifier": {"id": URI, "policy": {"name", "digest", …}}, "timeCreated": TIME,
                   "properties": ["WEIGHBRIDGE_VERDICT_IDENTICAL", …]}}

in-toto attestation framework, Statement v1 and predicate svr v0.1. The subjects are the files that
lay in the copy, so a policy that is asked about other bytes finds no subject. ``policy`` names the
manifest that the copy was compared with; it is the extension that the predicate foresees.
"""

import base64
import json
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from . import dsse, oms
from .errors import InputError
from .findings import Verdict
from .report import Report

PREDICATE_TYPE = "https://in-toto.io/attestation/svr/v0.1"
VERIFIER_ID = "pkg:generic/weighbridge-verifier@1"
"""Changes when what a property stands for changes."""


def attest(report: Report, key: EllipticCurvePrivateKey, *, at: datetime) -> str:
    """Return the envelope, as JSON, that says with ``key`` what ``report`` found at the time ``at``.

    Raises:
        InputError: the verdict is ``untrusted``, or no file could be read: nothing was verified.
    """
    if report.verdict is Verdict.UNTRUSTED or not report.subjects:
        raise InputError(
            f"Nothing is attested: {report.objection or 'there is no file that could be read.'}"
        )
    statement = {
        "_type": oms.STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(report.subjects.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "verifier": {
                "id": VERIFIER_ID,
                "policy": {
                    "name": report.checkpoint,
                    "digest": {"sha256": report.manifest["digest"]},
                    "revision": report.manifest["revision"],
                    "signedBy": report.manifest["signed_by"],
                },
            },
            "timeCreated": at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "properties": properties(report),
        },
    }
    payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": dsse.PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": oms.key_hint(key.public_key()),
                "sig": base64.b64encode(dsse.sign(payload, key)).decode(),
            }
        ],
    }
    return json.dumps(envelope) + "\n"


def properties(report: Report) -> list[str]:
    """Return what was found, as words that a policy asks for; a check not passed adds none."""
    found = [f"WEIGHBRIDGE_VERDICT_{report.verdict.name}"]
    if report.manifest["signed_by"]:
        found.append("WEIGHBRIDGE_MANIFEST_SIGNED")
    if report.inference.get("status") == "agrees":
        found.append("WEIGHBRIDGE_INFERENCE_AGREES")
    if report.exit_status == 0:
        found.append("WEIGHBRIDGE_ACCEPTED")
    return found
