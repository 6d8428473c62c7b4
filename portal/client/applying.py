"""Apply for access from a terminal: a family's form as a file to be filled, then sent.

    {"family": "llama", "checkpoints": ["llama/7b@1"], "answers": {"purpose": "…"},
     "terms_sha256": "…", "questions": […]}

`questions` only explain; what is sent are `checkpoints` and `answers`, with the digest of the terms
that were read and accepted.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verifier.names import shown

from .errors import ClientError, PortalError
from .site import Site

FAMILY = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
MAX_FILE_BYTES = 1 << 20
SILENT = ("header", "label")
MANY = ("options", "table")


class ApplyError(ClientError):
    """Nothing was sent; the message says what to change."""


def form_of(site: Site, family: str) -> dict[str, Any]:
    """Return what ``family`` asks.

    Raises:
        ApplyError: ``family`` is no family's name.
        PortalError: the answer is not a form, or its terms are not those of their digest.
    """
    if not FAMILY.fullmatch(family):
        raise ApplyError(f"{shown(family)[:80]!r} is no family's name, such as llama.")
    form = site.get_json(f"/api/v1/families/{family}/form")
    try:
        terms, questions, names = form["terms"], form["questions"], form["checkpoints"]
        digest = hashlib.sha256(terms["text"].encode()).hexdigest()
        complete = all(
            isinstance(one["id"], str) and isinstance(one["type"], str) for one in questions
        )
        complete = complete and all(isinstance(name, str) for name in names)
    except (KeyError, TypeError, AttributeError):
        complete, digest = False, ""
    if not complete:
        raise PortalError("The portal's answer is not a form.")
    if digest != terms["sha256"]:
        raise PortalError("The terms are not those that their digest names; nothing was sent.")
    return dict(form)


def template(form: dict[str, Any]) -> dict[str, Any]:
    """Return a file to be filled: an empty answer for each question, every checkpoint chosen."""
    asked = [one for one in form["questions"] if one["type"] not in SILENT]
    return {
        "family": form["family"],
        "checkpoints": form["checkpoints"],
        "answers": {
            one["id"]: [] if one["type"] in MANY else ""
            for one in asked
            if one["type"] != "attachment"
        },
        "terms_sha256": form["terms"]["sha256"],
        "questions": form["questions"],
    }


def read_filled(path: Path, family: str) -> dict[str, Any]:
    """Return the checkpoints and answers of a filled file.

    Raises:
        ApplyError: it cannot be read, or is not such a file, or of another family.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        filled = json.loads(data) if len(data) <= MAX_FILE_BYTES else None
    except OSError as error:
        raise ApplyError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ApplyError(f"{path} is not JSON; make a new one with --form.") from None
    if (
        not isinstance(filled, dict)
        or not isinstance(filled.get("answers"), dict)
        or not isinstance(filled.get("checkpoints"), list)
    ):
        raise ApplyError(f"{path} holds no answers and checkpoints; make a new one with --form.")
    if filled.get("family") != family:
        raise ApplyError(
            f"{path} was made for the family {shown(str(filled.get('family')))[:80]!r}."
        )
    return {"answers": filled["answers"], "checkpoints": filled["checkpoints"]}


def accept(
    form: dict[str, Any],
    digest: str | None,
    *,
    ask: Callable[[str], str] | None,
    say: Callable[[str], None],
) -> str:
    """Return the digest of the terms, once they are accepted: named by ``digest``, or read and
    answered with yes through ``ask``, which is None where nobody can be asked.

    Raises:
        ApplyError: they are not accepted.
    """
    terms: dict[str, str] = form["terms"]
    if digest is not None:
        if digest != terms["sha256"]:
            raise ApplyError(
                f"The terms have the digest {shown(terms['sha256'])}, not the one you accept."
            )
        return digest
    if ask is None:
        raise ApplyError(
            f"Read the terms, then accept them with --accept {shown(terms['sha256'])} ."
        )
    for line in terms["text"].splitlines():
        say(shown(line))
    if ask("Type yes to accept these terms: ").strip().lower() != "yes":
        raise ApplyError("You did not accept the terms; nothing was sent.")
    return terms["sha256"]


def send(site: Site, family: str, filled: dict[str, Any], digest: str) -> str:
    """Apply, and return the sentence that says where the request is."""
    answer = site.post_json(
        f"/api/v1/families/{family}/requests", filled | {"terms_sha256": digest}
    )
    try:
        return f"Request {int(answer['id'])} is sent; see it at {shown(str(answer['url']))[:500]}"
    except (KeyError, TypeError, ValueError):
        raise PortalError("The portal's answer names no request; ask it with status.") from None
