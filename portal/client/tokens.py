"""The token that a person's requests carry: from the environment, or the file that login wrote.

$XDG_CONFIG_HOME/weighbridge/tokens.json   {"https://portal.example": "hf_…"}, mode 0600
"""

import fcntl
import json
import os
import re
import stat
from pathlib import Path

from .errors import ClientError

VARIABLE = "WEIGHBRIDGE_TOKEN"
MAX_FILE_BYTES = 1 << 20
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")


def token_for(portal: str) -> str | None:
    """Return the token for the portal with this address, None where there is none.

    Raises:
        ClientError: it cannot be read, could be read by others, or is no token.
    """
    token = os.environ.get(VARIABLE, "").strip() or _kept(portal)
    if token is not None and not _TOKEN.fullmatch(token):
        raise ClientError("The token holds a space or a control character; copy it again.")
    return token


def token_file() -> Path:
    """Return where login keeps tokens."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "weighbridge" / "tokens.json"


def keep(portal: str, token: str) -> Path:
    """Keep ``token`` for the portal with this address, and return the file, which only we may read.

    Raises:
        ClientError: it is no token, or the file cannot be read or written.
    """
    if not _TOKEN.fullmatch(token):
        raise ClientError("The portal gave a token with a space or a control character in it.")
    path = token_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (path.parent / "tokens.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two logins at once keep both tokens
            kept = _read_all(path) or {}
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.unlink(missing_ok=True)
            writer = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(writer, "w") as file:
                json.dump(kept | {portal: token}, file, indent=1)
            draft.replace(path)
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _kept(portal: str) -> str | None:
    token = (_read_all(token_file()) or {}).get(portal)
    return token if isinstance(token, str) else None


def _read_all(path: Path) -> dict[str, object] | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ClientError(f"{path} can be read by others; run chmod 600 {path} and try again.")
    try:
        kept = json.loads(data)
    except (ValueError, RecursionError):
        kept = None
    if not isinstance(kept, dict):
        raise ClientError(f"{path} is not what login writes; remove it and log in again.")
    return kept
