"""Bundles signed by an identity: Sigstore's short-lived certificates, its log and its timestamps.

    "verificationMaterial": {"certificate": {"rawBytes": BASE64}, "tlogEntries": [{…}],
                             "timestampVerificationData": {…}}

The `sigstore` library, an optional extra, does the work: the certificate by a Fulcio authority at
the time of signing, its entry in a certificate log, the identity and its provider, the entry in
the Rekor log with its proof of inclusion, the signature. Whom Sigstore itself trusts is fetched
from its TUF repository; where that cannot be reached, what came with the library serves.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryptography import x509

from . import dsse, names
from .errors import InputError, ManifestError, SignatureError
from .trust import Signer, SigstoreIdentity

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot

MAX_TOKEN_BYTES = 64 << 10


def signer_of(
    bundle: bytes, payload: bytes, wanted: SigstoreIdentity, root: "TrustedRoot | None" = None
) -> Signer:
    """Return who signed ``payload`` in ``bundle``; it must be the identity that is ``wanted``.

    ``root`` is whom Sigstore trusts (default: its public instance, or the staging one).

    Raises:
        SignatureError: the bundle does not hold, or another identity signed it.
        ManifestError: it is malformed.
        InputError: the library is not installed.
    """
    _require()
    from sigstore import errors, models
    from sigstore.verify import Verifier, policy

    with _quiet():
        try:
            parsed = models.Bundle.from_json(bundle)
        except (errors.Error, ValueError) as error:
            raise ManifestError(f"The Sigstore bundle is malformed: {_line(error)}.") from None
        try:
            verifier = Verifier(trusted_root=root or _config(wanted.staging).trusted_root)
            rule = policy.Identity(identity=wanted.identity, issuer=wanted.provider)
            kind, signed = verifier.verify_dsse(parsed, rule)
        except (errors.Error, ValueError, x509.ExtensionNotFound) as error:
            raise SignatureError(
                f"The manifest's Sigstore signature by {names.shown(wanted.identity)} "
                f"({names.shown(wanted.provider)}) does not hold: {_line(error)}."
            ) from None
    if kind != dsse.PAYLOAD_TYPE or signed != payload:
        raise SignatureError("The Sigstore bundle does not sign the statement that it holds.")
    return Signer(
        signed_by=f"{wanted.identity} ({wanted.provider})",
        anchor=f"sigstore {wanted.provider} {wanted.identity}",
    )


def sign(payload: bytes, token: str, *, staging: bool) -> bytes:
    """Return a bundle over ``payload`` by the identity that ``token`` (OpenID) proves.

    Raises:
        InputError: the library is not installed, the token is not one, or Sigstore's services
            cannot be reached or refuse it.
    """
    _require()
    import requests
    from sigstore import errors, oidc
    from sigstore import sign as signing
    from sigstore.dsse import Statement

    if len(token) > MAX_TOKEN_BYTES:
        raise InputError("The identity token is too long to be one.")
    with _quiet():
        try:
            identity = oidc.IdentityToken(token)
        except oidc.IdentityError as error:
            raise InputError(f"The identity token is not valid: {_line(error)}.") from None
        try:
            context = signing.SigningContext.from_trust_config(_config(staging, refresh=True))
            with context.signer(identity) as signer:
                return signer.sign_dsse(Statement(payload)).to_json().encode() + b"\n"
        except (errors.Error, requests.RequestException) as error:
            raise InputError(f"Sigstore did not sign: {_line(error)}.") from None


def _require() -> None:
    try:
        import sigstore  # noqa: F401  (only whether it is there)
    except ImportError:
        raise InputError(
            "Bundles signed by an identity need the package sigstore, which is not installed; "
            "run `pip install 'sigstore>=4.5,<5'`."
        ) from None


def _config(staging: bool, *, refresh: bool = False) -> "ClientTrustConfig":
    """Return whom Sigstore trusts: as of now, else (unless ``refresh``) as the library knows."""
    from sigstore import errors, models

    choose = models.ClientTrustConfig.staging if staging else models.ClientTrustConfig.production
    try:
        return choose()
    except errors.TUFError:
        if refresh:
            raise
        return choose(offline=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's own lines off stderr, which carries one sentence of ours."""
    loggers = [logging.getLogger(name) for name in ("sigstore", "tuf", "urllib3")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _line(error: Any) -> str:
    """Return what the library says, on one line and without its final stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return names.shown(text[:300]).rstrip(".")
