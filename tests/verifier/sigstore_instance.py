"""A Sigstore of our own: it certifies identities, logs certificates, and logs signatures.

Its bundles are of the same form as those of the public instance, and the `sigstore` library holds
them to the same rules, under the trusted root that :meth:`Instance.trusted_root` writes.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.verifier.pki import NO_USAGE, YEAR, Holder, authority
from verifier import dsse

SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
ORIGIN = "log.example.org - 1"
SHA256 = ec.ECDSA(hashes.SHA256())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(spki(key)).digest()


def der(tag: int, content: bytes) -> bytes:
    """Return one DER value of fewer than 65,536 bytes."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    return bytes([tag, 0x82]) + struct.pack("!H", size) + content


@dataclass
class Instance:
    """Certificate authority, certificate log and signature log, each with a key."""

    root: Holder = field(
        default_factory=lambda: authority("Sigstore of a test", starts=datetime.now(UTC) - YEAR)
    )
    certificate_log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    signature_log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def trusted_root(self) -> str:
        """Return whom a verifier of this instance trusts, as Sigstore's TUF repository says it."""
        since = (datetime.now(UTC) - YEAR).isoformat()
        certificate = self.root.certificate.public_bytes(serialization.Encoding.DER)

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            return {
                "baseUrl": "https://log.example.org",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": encoded(spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": since},
                },
                "logId": {"keyId": encoded(key_id(key))},
            }

        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.signature_log)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "test", "commonName": "test"},
                        "uri": "https://ca.example.org",
                        "certChain": {"certificates": [{"rawBytes": encoded(certificate)}]},
                        "validFor": {"start": since},
                    }
                ],
                "ctlogs": [log(self.certificate_log)],
                "timestampAuthorities": [],
            }
        )

    def certify(self, identity: str, provider: str, key: ec.EllipticCurvePrivateKey, at: datetime):
        """Issue a certificate of ten minutes, with the certificate log's promise in it."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at)
            .not_valid_after(at + timedelta(minutes=10))
        )
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root.key.public_key())
        for extension, critical in (
            (x509.KeyUsage(**(NO_USAGE | {"digital_signature": True})), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
            (above, False),
            (x509.SubjectAlternativeName([x509.RFC822Name(identity)]), True),
            (x509.UnrecognizedExtension(ISSUER, provider.encode()), False),
            (x509.UnrecognizedExtension(ISSUER_2, der(12, provider.encode())), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        before = builder.sign(self.root.key, hashes.SHA256())
        promise = self._promise(before.tbs_certificate_bytes, at)
        listed = x509.UnrecognizedExtension(SCT_LIST, promise)
        final = builder.add_extension(listed, critical=False).sign(self.root.key, hashes.SHA256())
        return x509.load_der_x509_certificate(final.public_bytes(serialization.Encoding.DER))

    def _promise(self, certificate: bytes, at: datetime) -> bytes:
        """Return a list of one signed certificate timestamp (RFC 6962, sections 3.2 and 3.3)."""
        milliseconds = int(at.timestamp() * 1000)
        entry = key_id(self.root.key) + struct.pack("!I", len(certificate))[1:] + certificate
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + struct.pack("!H", 0)
        signature = self.certificate_log.sign(signed, SHA256)
        sct = struct.pack("!B32sQH", 0, key_id(self.certificate_log), milliseconds, 0)
        sct += struct.pack("!BBH", 4, 3, len(signature)) + signature
        one = struct.pack("!H", len(sct)) + sct
        return der(4, struct.pack("!H", len(one)) + one)

    def sign(self, payload: bytes, identity: str, provider: str, *, late: bool = False) -> bytes:
        """Return a bundle over ``payload`` by ``identity``; ``late``: after its certificate ended."""
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=30)
        key = new_key()
        certificate = self.certify(identity, provider, key, at)
        signature = dsse.sign(payload, key)
        envelope = {
            "payload": encoded(payload),
            "payloadType": dsse.PAYLOAD_TYPE,
            "signatures": [{"sig": encoded(signature)}],
        }
        time = int(at.timestamp()) + (3600 if late else 5)
        material = {
            "certificate": {
                "rawBytes": encoded(certificate.public_bytes(serialization.Encoding.DER))
            },
            "tlogEntries": [self._entry(envelope, payload, certificate, time)],
        }
        bundle = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": material,
            "dsseEnvelope": envelope,
        }
        return json.dumps(bundle).encode()

    def _entry(self, envelope: Any, payload: bytes, certificate: Any, time: int) -> dict[str, Any]:
        """Return the second entry of a signature log, with its proof and the log's promise."""
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": digest_of(json.dumps(envelope).encode()),
                "payloadHash": digest_of(payload),
                "signatures": [
                    {
                        "signature": envelope["signatures"][0]["sig"],
                        "verifier": encoded(certificate.public_bytes(serialization.Encoding.PEM)),
                    }
                ],
            },
        }
        leaf = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        first = hashlib.sha256(b"\0" + b"an earlier entry").digest()
        root = hashlib.sha256(b"\1" + first + hashlib.sha256(b"\0" + leaf).digest()).digest()
        note = f"{ORIGIN}\n2\n{encoded(root)}\n"
        mark = key_id(self.signature_log)[:4] + self.signature_log.sign(note.encode(), SHA256)
        promised = {
            "body": encoded(leaf),
            "integratedTime": time,
            "logID": key_id(self.signature_log).hex(),
            "logIndex": 1,
        }
        canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        return {
            "logIndex": "1",
            "logId": {"keyId": encoded(key_id(self.signature_log))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(time),
            "inclusionPromise": {
                "signedEntryTimestamp": encoded(self.signature_log.sign(canonical, SHA256))
            },
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": encoded(root),
                "treeSize": "2",
                "hashes": [encoded(first)],
                "checkpoint": {"envelope": f"{note}\n— log.example.org {encoded(mark)}\n"},
            },
            "canonicalizedBody": encoded(leaf),
        }


def digest_of(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
