"""What this machine has seen: the newest revision of each checkpoint version, per root or key.

    $WEIGHBRIDGE_DATA/seen.json   {ROOT'S IDENTITY | KEY HINT: {"llama/7b@1": 7,
                                   "root.json": 2, "latest.json": 1788220800}}

`root.json` is a version, `latest.json` the time of issue in seconds since 1970. An older one than
one already seen is refused (TUF specification 1.0.33, sections 5.3.5 and 5.4.3: rollback). Where
the file cannot be written, nothing is remembered and nothing fails.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

MAX_SEEN_BYTES = 16 << 20


def newest_seen(folder: Path | None, scope: str, name: str) -> int:
    """Return the newest revision of ``name`` seen under a root or key, 0 if none was."""
    return _read(folder).get(scope, {}).get(name, 0) if folder else 0


def remember(folder: Path | None, scope: str, name: str, revision: int) -> None:
    """Remember ``revision`` if it is newer than what was seen, where that is possible."""
    if folder is None:
        return
    with contextlib.suppress(OSError), _locked(folder):
        seen = _read(folder)
        revisions = seen.setdefault(scope, {})
        if revisions.get(name, 0) >= revision:
            return
        revisions[name] = revision
        draft = folder / f".seen.{os.getpid()}.json"
        try:
            draft.write_text(json.dumps(seen, sort_keys=True))
            draft.replace(folder / "seen.json")
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "seen.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(folder: Path) -> dict[str, dict[str, int]]:
    """Return what was seen; a file that is not there or not ours to read is nothing seen."""
    try:
        with (folder / "seen.json").open("rb") as file:
            seen = json.loads(file.read(MAX_SEEN_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(seen, dict):
        return {}
    return {
        hint: {name: rev for name, rev in revisions.items() if isinstance(rev, int)}
        for hint, revisions in seen.items()
        if isinstance(revisions, dict)
    }
