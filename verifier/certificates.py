"""Certificate chains: who signed, as an authority that was trusted beforehand says.

    "x509CertificateChain": {"certificates": [{"rawBytes": BASE64 of DER}, …]}   signer's first

Path validation after RFC 5280, section 6.1: names, signatures, validity now, basic constraints and
key usage. OMS specification 1.0, sections 4.1 and 8.2: the signer's certificate must be for code
signing. What comes with the bundle is only ever a step on the way: the path must end in a
certificate that the person gave. Revocation lists are not asked.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from . import dsse, names
from .errors import ManifestError, SignatureError
from .trust import Signer

MAX_CHAIN = 16
MAX_CERTIFICATE_BYTES = 64 << 10
MIN_RSA_BITS = 2048

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

_HASHES = ("sha256", "sha384", "sha512")
_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Refuse what the library only warns of and will refuse later, such as a serial number of 0.

    Raises:
        ValueError: it would have warned, or knows no such version of X.509.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        try:
            yield
        except (CryptographyDeprecationWarning, x509.InvalidVersion) as error:
            raise ValueError(str(error)) from None


def load_chain(encoded: Sequence[bytes]) -> list[x509.Certificate]:
    """Parse the certificates (DER) of a bundle, the signer's first.

    Raises:
        ManifestError: there is none, there are too many, or one cannot be parsed.
    """
    if not 1 <= len(encoded) <= MAX_CHAIN:
        raise ManifestError(f"The signature bundle must hold 1 to {MAX_CHAIN} certificates.")
    chain = []
    for data in encoded:
        if len(data) > MAX_CERTIFICATE_BYTES:
            raise ManifestError("The signature bundle holds a certificate that is too large.")
        try:
            with strictly():
                certificate = x509.load_der_x509_certificate(data)
                # These are parsed when they are first asked for.
                _ = certificate.extensions, certificate.subject, certificate.issuer
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            raise ManifestError("The signature bundle holds a malformed certificate.") from None
        chain.append(certificate)
    return chain


def signer_of(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], at: datetime
) -> tuple[ec.EllipticCurvePublicKey, Signer]:
    """Return the key of the first certificate of ``chain``, and whose it is.

    Raises:
        SignatureError: it may not sign, is not valid ``at`` that time, or no path of valid
            certificates leads from it to one of ``authorities``.
    """
    leaf = chain[0]
    _check_signer(leaf, at)
    anchor = _find_anchor(chain, authorities, at)
    key = _key(leaf)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not dsse.is_supported(key):
        raise SignatureError(
            f"The key of the certificate {name(leaf)} is not on P-256, P-384 or P-521, the only "
            "kinds that sign models."
        )
    return key, Signer(
        signed_by=f"{name(leaf)}, certificate {fingerprint(leaf)}",
        anchor=f"certificate {fingerprint(anchor)}",
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256, in hex, of ``certificate``."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def name(certificate: x509.Certificate) -> str:
    """Return the subject of ``certificate`` on one line (RFC 4514)."""
    return names.shown(certificate.subject.rfc4514_string())[:200] or "(without a name)"


def _check_signer(leaf: x509.Certificate, at: datetime) -> None:
    """Make sure that ``leaf`` is valid now and may sign code."""
    problem = _why_not_valid(leaf, at)
    usage = _extension(leaf, x509.KeyUsage)
    if problem is None and usage is not None and not usage.digital_signature:
        problem = "is not for digital signatures"
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if problem is None and (extended is None or ExtendedKeyUsageOID.CODE_SIGNING not in extended):
        problem = "is not for code signing"
    if problem:
        raise SignatureError(
            f"The signer's certificate {name(leaf)} {problem}; ask the publisher to sign again "
            "with one that is."
        )


def _find_anchor(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], at: datetime
) -> x509.Certificate:
    """Search breadth first, so that each certificate is looked at once, at its least depth."""
    trusted = {fingerprint(certificate) for certificate in authorities}
    problems = []
    pending = [(chain[0], 0)]
    seen = {fingerprint(chain[0])}
    while pending:
        subject, depth = pending.pop(0)
        if fingerprint(subject) in trusted:
            return subject
        for issuer in (*authorities, *chain[1:]):
            if fingerprint(issuer) in seen or not _is_issued(subject, issuer):
                continue
            problem = _why_not_valid(issuer, at) or _why_not_authority(issuer, depth)
            if problem:
                problems.append(f"the certificate {name(issuer)} on the way {problem}")
                continue
            seen.add(fingerprint(issuer))
            pending.append((issuer, depth + 1))
    reason = problems[0] if problems else "no authority that is trusted here stands behind it"
    raise SignatureError(
        f"The signer's certificate {name(chain[0])} is not trusted: {reason}; get the publisher's "
        "authority certificate from them and give it with --trusted-key."
    )


def _is_issued(subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether ``issuer`` signed ``subject``, with a hash that still means something."""
    if subject.issuer != issuer.subject:
        return False
    try:
        algorithm = subject.signature_hash_algorithm
        if algorithm is not None and algorithm.name not in _HASHES:
            return False
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _why_not_valid(certificate: x509.Certificate, at: datetime) -> str | None:
    if at < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if at > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    unknown = [e.oid for e in certificate.extensions if e.critical and e.oid not in _KNOWN_CRITICAL]
    if unknown:
        return f"has a critical extension, {unknown[0].dotted_string}, that is not known here"
    return None


def _why_not_authority(certificate: x509.Certificate, below: int) -> str | None:
    """Return why it may not have issued another with ``below`` authorities in between."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return "is not that of an authority"
    if constraints.path_length is not None and below > constraints.path_length:
        return f"may have only {constraints.path_length} authorities below it"
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return "may not sign certificates"
    if _extension(certificate, x509.NameConstraints) is not None:
        return "constrains names, which is not supported here"
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    allowed = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if extended is not None and not any(oid in extended for oid in allowed):
        return "is not for code signing"
    key = _key(certificate)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return f"has an RSA key of fewer than {MIN_RSA_BITS} bits"
    return None


def _key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
