"""A public-key infrastructure for tests: authorities, and the certificates that they issue."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from verifier import keys

DAY = timedelta(days=1)
YEAR = 365 * DAY
FAR = datetime(2120, 1, 1, tzinfo=UTC)
NO_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}
SIGNS = {"digital_signature"}
CERTIFIES = {"key_cert_sign"}


@dataclass(frozen=True)
class Holder:
    """Somebody with a key and a certificate for it."""

    key: Any
    certificate: x509.Certificate

    def issue(self, name: str, **options: Any) -> "Holder":
        """Issue a certificate to ``name`` under this one."""
        return issue(name, self, **options)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write key and certificate as PEM and return where."""
        key, certificate = folder / f"{name}.key.pem", folder / f"{name}.crt.pem"
        key.write_bytes(keys.private_pem(self.key))
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return key, certificate


def issue(
    name: str,
    issuer: Holder | None = None,
    *,
    key: Any = None,
    ca: bool | None = False,
    path_length: int | None = None,
    starts: datetime | None = None,
    ends: datetime | None = None,
    usage: set[str] | None = None,
    extended: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    others: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    digest: hashes.HashAlgorithm | None = None,
) -> Holder:
    """Issue a certificate by ``issuer``, or signed by itself; ``ca`` None: no basic constraints."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC).replace(microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts or now - DAY)
        .not_valid_after(ends or now + YEAR)
    )
    if ca is not None:
        constraints = x509.BasicConstraints(ca=ca, path_length=path_length)
        builder = builder.add_extension(constraints, critical=True)
    usage = (CERTIFIES if ca else SIGNS) if usage is None else usage
    if usage:
        flags = NO_USAGE | dict.fromkeys(usage, True)
        builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
    if extended and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    for extension, critical in others:
        builder = builder.add_extension(extension, critical=critical)
    # The reference tool asks OpenSSL, which wants to know whose key signed.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = builder.add_extension(identifier, critical=False)
    signing = issuer.key if issuer else key
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    builder = builder.add_extension(above, critical=False)
    return Holder(key, builder.sign(signing, digest or hashes.SHA256()))


def authority(name: str, issuer: Holder | None = None, **options: Any) -> Holder:
    """Issue the certificate of an authority."""
    return issue(name, issuer, **({"ca": True} | options))
