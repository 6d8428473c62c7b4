"""Keys: whom this machine trusts, and how key files are read and written.

A trusted key is a PEM public key that was installed beforehand, or one that a root names which was
(roots.py), never one that came with a copy. Those installed with a portal lie in
``$WEIGHBRIDGE_DATA/keys``.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from . import dsse
from .errors import InputError
from .trust import SigstoreIdentity, Trust, TrustedKey

if TYPE_CHECKING:
    from cryptography import x509

    from .envelopes import PrivateKey

MAX_KEY_BYTES = 1 << 20
"""All authorities that an operating system trusts are less than half of this."""
RELEASE_PUBLIC = "release.pub.pem"


def data_folder() -> Path | None:
    """Return ``$WEIGHBRIDGE_DATA``, else ``var`` beside manage.py, else None."""
    chosen = os.environ.get("WEIGHBRIDGE_DATA")
    if chosen:
        return Path(chosen)
    project = Path(__file__).resolve().parent.parent
    return project / "var" if (project / "manage.py").is_file() else None


def load_trusted(path: Path) -> Trust:
    """Read whom ``path`` says to trust: a PEM public key, certificates of authorities, or a root.

    Raises:
        InputError: it cannot be read, is a private key, is neither, or of a kind OMS does not know.
        VerifierError: it is a root that cannot be trusted.
    """
    data = _read(path)
    if data.lstrip().startswith(b"{"):
        return _of_root(path)
    if b"PRIVATE KEY-----" in data:
        raise InputError(
            f"{path} is a private key; give the public one, and keep this file to its owner."
        )
    if b"-----BEGIN CERTIFICATE-----" in data:
        return Trust(authorities=tuple(load_certificates(path)))
    return Trust(keys=(_public_key(path, data),))


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Read the PEM certificates in ``path``, at least one.

    Raises:
        InputError: it cannot be read, or holds no certificate that can be parsed.
    """
    from cryptography import x509

    from .certificates import strictly

    try:
        with strictly():
            return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise InputError(f"{path} is not a PEM certificate.") from None


def _of_root(path: Path) -> Trust:
    from . import latest

    trusted = latest.load_root(path)
    anchor = trusted.root.identity
    keys = tuple(
        TrustedKey(key, hint, path, anchor)
        for hint, key in trusted.root.keys_of("release").items()
        if isinstance(key, ec.EllipticCurvePublicKey)
    )
    return Trust(keys=keys, roots=(trusted,))


def _public_key(path: Path, data: bytes) -> TrustedKey:
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} is not a PEM public key.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not dsse.is_supported(key):
        raise InputError(
            f"{path} is not a P-256, P-384 or P-521 key, the only kinds that sign models."
        )
    return TrustedKey(key, dsse.key_hint(key), path)


def installed_keys(data: Path | None) -> Trust:
    """Trust the keys installed with the portal, in ``data``/keys.

    They are those that root.json names, where there is one, and every other ``*.pub.pem``: the
    portal's own release key is then the root's to name.
    """
    if data is None:
        return Trust()
    from . import roots

    folder = data / "keys"
    paths = sorted(folder.glob("*.pub.pem"))
    root = folder / roots.NAME
    if root.is_file():
        paths = [root, *(path for path in paths if path.name != RELEASE_PUBLIC)]
    return load_all(paths)


def load_all(paths: Iterable[Path]) -> Trust:
    """Read each of ``paths`` as :func:`load_trusted` does, and trust them all."""
    return Trust.union(load_trusted(path) for path in paths)


def trust_identity(identity: str | None, provider: str | None, staging: bool = False) -> Trust:
    """Trust ``identity`` as ``provider`` vouched for it to Sigstore; with neither, nobody.

    Raises:
        InputError: only one of the two is given.
    """
    if identity is None and provider is None:
        return Trust()
    if not identity or not provider:
        raise InputError(
            "A Sigstore identity counts only with its provider: give both --identity and "
            "--identity-provider."
        )
    return Trust(identity=SigstoreIdentity(identity, provider, staging))


def load_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the unencrypted PEM private key in ``path``, which must be for a curve that OMS knows.

    Raises:
        InputError: it cannot be read, is encrypted, is no private key, or of another kind.
    """
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise InputError(f"{path} is encrypted; give a key without a passphrase.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} is not a PEM private key.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not dsse.is_supported(key):
        raise InputError(
            f"{path} is not a P-256, P-384 or P-521 key, the only kinds that sign models."
        )
    return key


def private_pem(key: PrivateKey) -> bytes:
    """Return the PEM text (PKCS #8, no passphrase) of ``key``."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_once(path: Path, data: bytes, mode: int) -> None:
    """Write ``path`` so that it appears whole or not at all; if it is there already, it stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
        _sync_folder(path.parent)
    except FileExistsError:
        pass  # another process was first; its key counts
    finally:
        draft.unlink()


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write ``path`` so that it holds the old bytes or the new ones, never part of them."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_once(aside, data, mode)
        aside.replace(path)
        _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make sure that the names in ``folder`` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        with _open(path) as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_KEY_BYTES:
        raise InputError(f"{path} is larger than {MAX_KEY_BYTES >> 20} MiB: not a key.")
    return data


def _open(path: Path) -> BinaryIO:
    """Open a regular file; a pipe is not waited for.

    Raises:
        InputError: it is something else.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file; give one with the key in it.")
    return os.fdopen(descriptor, "rb")
