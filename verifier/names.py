"""Names of files in manifests: which are refused, and how any name is shown.

All names are POSIX paths relative to the checkpoint's folder (OMS specification 1.0: no absolute
name, no ``..``). Our own manifests are held to more, so that one name means one file everywhere.
"""

import unicodedata
from collections.abc import Iterable

from .errors import ManifestError

MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255


def shown(name: str) -> str:
    """Return ``name`` on one line, with control characters and undecodable bytes escaped."""
    return name if name.isprintable() else "".join(map(_visible, name))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def is_utf8(name: str) -> bool:
    """Tell whether ``name``, as Python decoded it from the file system, is honest UTF-8."""
    return not _has_surrogate(name)


def safe(name: object) -> str:
    """Return ``name`` in normal form, without empty and ``.`` parts.

    Raises:
        ManifestError: it is not a name inside the folder: absolute, ``..``, NUL, no text, too long.
    """
    if not isinstance(name, str) or not name:
        raise ManifestError("The manifest lists a file without a name.")
    if _has_surrogate(name):
        raise ManifestError(f"The manifest lists {name[:80]!a}, which is not a UTF-8 name.")
    if "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise ManifestError(
            f"The manifest lists {shown(name[:80])!r}, which is not a name inside the folder."
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if len(name.encode()) > MAX_NAME_BYTES or any(len(p.encode()) > MAX_PART_BYTES for p in parts):
        raise ManifestError(f"The manifest lists a name that is too long: {shown(name[:80])!r}.")
    return "/".join(parts) or "."


def why_not_portable(name: str) -> str | None:
    """Return why ``name`` may mean another file on another machine, or None if it is plain."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it has an empty, `.` or `..` part"
    if any(c in "\\:" or unicodedata.category(c) in ("Cc", "Cs") for c in name):
        return "it has a backslash, a colon or a control character"
    return None


def check_portable(names: Iterable[str], what: str = "The manifest lists") -> None:
    """Refuse names that differ between file systems: odd characters, equal but for case or accents.

    Raises:
        ManifestError: a name is not portable, or two names would be one file on some systems.
    """
    seen: dict[str, str] = {}
    for name in names:
        reason = why_not_portable(name)
        if reason:
            raise ManifestError(f"{what} {shown(name[:80])!r}: {reason}.")
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if folded in seen:
            raise ManifestError(
                f"{what} {shown(name[:80])!r} and {shown(seen[folded][:80])!r}, "
                "which are one file on some systems."
            )
        seen[folded] = name


def _has_surrogate(name: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in name)
