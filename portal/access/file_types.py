"""Tell what an uploaded file is by its bytes, and hold that against the ending of its name.

    pdf         ISO 32000, section 7.5.2: the header
    png         PNG specification, section 5.2: the signature
    jpg, jpeg   ITU-T T.81, annex B: SOI and the marker after it
    txt         UTF-8 without control characters
    docx        ECMA-376, part 2: a zip with `[Content_Types].xml` and `word/document.xml`
    odt         OpenDocument 1.3, part 2: a zip whose `mimetype` says so

Office files that carry macros, or fetch a template from elsewhere (which may carry some), are refused.
"""

import lzma
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

MOST_MEMBERS, LARGEST_PART = 2000, 2_000_000
LARGEST_UNPACKED = 400_000_000  # bytes, as the zip's own directory says
LONGEST_NAME = 120
MEDIA_TYPES = {
    "pdf": "application/pdf",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "txt": "text/plain",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "odt": "application/vnd.oasis.opendocument.text",
}
# What reading a damaged zip may raise.
DAMAGED = (
    KeyError,
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
MACROS = ("vbaproject", "vbadata", "basic/", "scripts/", "macros/", "customui/", "activex/")


class FileTypeError(Exception):
    """The file is not of a type that may be sent; the message says why and what to do."""


def media_type_of(name: str, file: BinaryIO, allowed: list[str]) -> str:
    """Return the media type of a file whose ending and bytes agree.

    Raises:
        FileTypeError: the ending is not one of ``allowed``, or the bytes are something else.
    """
    ending = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if ending not in allowed or ending not in MEDIA_TYPES:
        raise FileTypeError(f"“{name}” is not one of the types asked for: {', '.join(allowed)}.")
    file.seek(0)
    if not CHECKS[ending](file):
        raise FileTypeError(
            f"“{name}” ends in .{ending}, but what is in it is something else; "
            "save it again in that format."
        )
    return MEDIA_TYPES[ending]


def safe_name(name: str) -> str:
    """Return the last part of a file's name without what could mislead: controls, directions."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(
        " " if letter.isspace() else letter
        for letter in unicodedata.normalize("NFC", last)
        if letter.isspace() or unicodedata.category(letter)[0] != "C"
    )
    kept = "".join("_" if letter in '<>:"|?*;%' else letter for letter in kept).strip(" .")
    stem, dot, ending = kept.rpartition(".")
    if len(kept) > LONGEST_NAME:
        kept = stem[: LONGEST_NAME - len(ending) - 1] + dot + ending if len(ending) < 10 else ""
    return kept[:LONGEST_NAME] or "file"


def _is_text(file: BinaryIO) -> bool:
    """Whether all of it is UTF-8 without control characters other than those of line and page."""
    try:
        text = file.read().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return not any(
        unicodedata.category(letter) == "Cc" and letter not in "\t\n\r\f" for letter in set(text)
    )


def _begins(*signatures: bytes) -> Callable[[BinaryIO], bool]:
    return lambda file: file.read(16).startswith(signatures)


def _members(file: BinaryIO) -> tuple[zipfile.ZipFile, list[str]] | None:
    """Return the zip and its members' names, if it is a sound one within bounds and without macros."""
    try:
        archive = zipfile.ZipFile(file)
        listed = archive.infolist()
    except DAMAGED:
        return None
    names = [one.filename for one in listed]
    if len(listed) > MOST_MEMBERS or len(set(names)) < len(names):
        return None
    if any(one.flag_bits & 1 for one in listed):  # encrypted: nobody could look into it
        return None
    if sum(one.file_size for one in listed) > LARGEST_UNPACKED:
        return None
    return archive, names


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a small member, or nothing where it is large, damaged or not there."""
    try:
        with archive.open(name) as member:
            part = member.read(LARGEST_PART + 1)
    except DAMAGED:
        return b""
    return part if len(part) <= LARGEST_PART else b""


def _refuse_macros(names: list[str]) -> None:
    for name in names:
        if any(part in name.lower() for part in MACROS):
            raise FileTypeError(
                "The document holds macros; save it without them and send it again."
            )


def _is_docx(file: BinaryIO) -> bool:
    found = _members(file)
    if found is None:
        return False
    archive, names = found
    _refuse_macros(names)
    types = _read(archive, "[Content_Types].xml")
    if "word/document.xml" not in names or b"wordprocessingml.document.main+xml" not in types:
        return False
    if b"macroEnabled" in types or b"vbaProject" in types:
        raise FileTypeError("The document holds macros; save it without them and send it again.")
    if b"attachedTemplate" in _read(archive, "word/_rels/settings.xml.rels"):
        raise FileTypeError(
            "The document uses a template from elsewhere; save it as PDF, or without the template."
        )
    return True


def _is_odt(file: BinaryIO) -> bool:
    found = _members(file)
    if found is None:
        return False
    archive, names = found
    _refuse_macros(names)
    return "content.xml" in names and _read(archive, "mimetype") == MEDIA_TYPES["odt"].encode()


CHECKS: dict[str, Callable[[BinaryIO], bool]] = {
    "pdf": _begins(b"%PDF-1.", b"%PDF-2."),
    "png": _begins(b"\x89PNG\r\n\x1a\n"),
    "jpg": _begins(b"\xff\xd8\xff"),
    "jpeg": _begins(b"\xff\xd8\xff"),
    "txt": _is_text,
    "docx": _is_docx,
    "odt": _is_odt,
}
