"""Other people's lists of digests: they say what should be there, and prove no origin.

    HEX  NAME              md5sum, sha1sum, sha256sum …; Meta's checklist.chk (MD5)
    ALG (NAME) = HEX       the same with --tag, and BSD
    [{"type": "file", "path", "size", "oid", "lfs": {"oid"}}, …]    a Hugging Face tree listing

GNU coreutils manual, "md5sum invocation": a leading backslash says that backslashes and line breaks
in the name are escaped; ``*`` before a name means binary. In a tree listing ``lfs.oid`` is the
SHA-256 of a large file, and ``oid`` is git's object id of any other. No key is needed; a copy that
agrees *matches the list*, and the report says that nobody signed it.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from . import names, oms, strict_json
from .errors import ManifestError
from .findings import Code, Finding
from .manifest import Manifest, ManifestFile, read_bounded
from .walk import MAX_FILE_BYTES

MAX_LIST_BYTES = 16 << 20

_BY_LENGTH = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_PLAIN = re.compile(r"(\\?)([0-9A-Fa-f]+)[ \t][ *]?(.+)", re.DOTALL)
_TAGGED = re.compile(
    r"(\\?)(MD5|SHA1|SHA224|SHA256|SHA384|SHA512) \((.*)\) = ([0-9A-Fa-f]+)", re.DOTALL
)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def is_list(data: bytes) -> bool:
    """Tell whether ``data`` is a list rather than a bundle, which is one JSON object."""
    return not data.lstrip().startswith(b"{")


def load(location: Path) -> Manifest:
    """Read the list at ``location``.

    Raises:
        ManifestError: it cannot be read, is empty, malformed or over a limit.
    """
    data = read_bounded(location, MAX_LIST_BYTES)
    tree = data.lstrip().startswith(b"[")
    files = _read_tree(data) if tree else _read_lines(data)
    if not files:
        raise ManifestError(f"{names.shown(str(location))} lists no file.")
    weak = any(file.algorithm in ("md5", "sha1", "git_sha1") for file in files.values())
    message = "The list of digests was not signed by anyone: a match proves no origin"
    message += ", and MD5 and SHA-1 find accidents only." if weak else "."
    return Manifest(
        statement=oms.Statement(
            name=location.name,
            resources=(),
            digest=hashlib.sha256(data).hexdigest(),
            signed_by="",
            predicate_type="",
            ignore_paths=oms.IGNORE_PATHS,
        ),
        location=location,
        files=files,
        name=location.name,
        findings=(Finding(Code.UNSIGNED, "", message),),
    )


def _read_lines(data: bytes) -> dict[str, ManifestFile]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ManifestError("The list of digests is not UTF-8 text.") from None
    files: dict[str, ManifestFile] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip() and not line.startswith("#"):
            _add(files, _read_line(line, number))
    return files


def _read_line(line: str, number: int) -> ManifestFile:
    """Read one line; unlike coreutils, a line that is no entry is not passed over."""
    if tagged := _TAGGED.fullmatch(line):
        escaped, algorithm, name, digest = tagged.groups()
        algorithm = algorithm.lower()
    elif plain := _PLAIN.fullmatch(line):
        escaped, digest, name = plain.groups()
        algorithm = _BY_LENGTH.get(len(digest), "")
    else:
        raise ManifestError(f"Line {number} of the list is neither a digest and a name nor empty.")
    if _BY_LENGTH.get(len(digest)) != algorithm:
        raise ManifestError(f"Line {number} of the list has a digest of an unknown length.")
    if escaped:
        kept = name[: 4 * names.MAX_NAME_BYTES]  # what is longer is refused as it is
        name = re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], kept)
    return _file(names.safe(name), algorithm, digest.lower())


def _read_tree(data: bytes) -> dict[str, ManifestFile]:
    listed = strict_json.loads(data, "The tree listing", max_bytes=MAX_LIST_BYTES)
    files: dict[str, ManifestFile] = {}
    for entry in listed:
        if not isinstance(entry, dict) or entry.get("type") not in ("file", "directory"):
            raise ManifestError("The tree listing has an entry that is neither file nor directory.")
        if entry["type"] == "file":
            _add(files, _read_entry(entry))
    return files


def _read_entry(entry: dict[str, Any]) -> ManifestFile:
    name, size, large = names.safe(entry.get("path")), entry.get("size"), entry.get("lfs")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
        raise ManifestError(f"The tree listing gives no size of {names.shown(name[:80])!r}.")
    algorithm, length = ("sha256", 64) if isinstance(large, dict) else ("git_sha1", 40)
    digest = large.get("oid") if isinstance(large, dict) else entry.get("oid")
    if not isinstance(digest, str) or not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
        raise ManifestError(f"The tree listing gives no digest of {names.shown(name[:80])!r}.")
    return _file(name, algorithm, digest, size)


def _file(name: str, algorithm: str, digest: str, size: int | None = None) -> ManifestFile:
    sha256 = digest if algorithm == "sha256" else ""
    return ManifestFile(name, sha256, size, algorithm=algorithm, digest=digest)


def _add(files: dict[str, ManifestFile], file: ManifestFile) -> None:
    if file.name in files:
        raise ManifestError(f"The list names {names.shown(file.name[:80])!r} twice.")
    if len(files) >= oms.MAX_RESOURCES:
        raise ManifestError(f"The list names more than {oms.MAX_RESOURCES:,} files.")
    files[file.name] = file
