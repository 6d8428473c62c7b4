"""How the Hub's clients are answered: JSON and headers, and refusals in the headers they read.

HEAD has no body, so that `X-Error-Code` and `X-Error-Message` carry what happened; `X-HF-Warning:
topic; text` is printed by every huggingface_hub since 1.2, once for each topic and process.
"""

import functools
import logging
import unicodedata
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from portal.accounts.rates import RateError
from portal.audit.chain import AuditError
from portal.storage.errors import StoreError

logger = logging.getLogger(__name__)

GATED, NO_REPOSITORY = "GatedRepo", "RepoNotFound"
NO_REVISION, NO_ENTRY = "RevisionNotFound", "EntryNotFound"
# word for word what the clients compare with; everything else at 401 they call a missing repository
BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - a message
LONGEST_HEADER = 1000
QUOTES = str.maketrans("“”„‘’–—…", '"""\'\'--.')

View = Callable[..., HttpResponseBase]


class Refusal(Exception):
    """What was asked is not handed over; the message says why and what to do."""

    def __init__(
        self, message: str, status: int, code: str = "", *, warning: str = "", commit: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.warning, self.commit = status, code, warning, commit


def one_line(text: str) -> str:
    """Return ``text`` as a header can carry it: one line of printable ASCII."""
    plain = unicodedata.normalize("NFKD", text.translate(QUOTES)).encode("ascii", "ignore").decode()
    return "".join(each if each.isprintable() else " " for each in plain)[:LONGEST_HEADER].strip()


def warn(response: HttpResponseBase, warning: str) -> None:
    """Have the client print ``warning``, `topic; text`, if there is one."""
    if warning:
        response.headers["X-HF-Warning"] = one_line(warning)


def answer(content: Any, *, commit: str = "", warning: str = "") -> HttpResponse:
    """Return ``content`` as JSON; it says what is so now, and is asked for again."""
    response = JsonResponse(content, safe=False)
    response.headers["Cache-Control"] = "private, no-cache"
    if commit:
        response.headers["X-Repo-Commit"] = commit
    warn(response, warning)
    return response


def refused(error: Refusal) -> HttpResponse:
    """Return a refusal as the clients read it."""
    response = JsonResponse({"error": str(error)}, status=error.status)
    response.headers["X-Error-Message"] = one_line(str(error))
    response.headers["Cache-Control"] = "no-store"
    if error.code:
        response.headers["X-Error-Code"] = error.code
    if error.commit:
        # with it a client remembers that this revision has no such file
        response.headers["X-Repo-Commit"] = error.commit
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    warn(response, error.warning)
    return response


def hub_view(*methods: str) -> Callable[[View], View]:
    """Make a view for the Hub's clients: of ``methods`` only, and with their refusals.

    No cookie counts here, so that nothing is there to be forged: who asks is told by a token alone.
    """

    def decorate(view: View) -> View:
        @csrf_exempt
        @functools.wraps(view)
        def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                if request.method not in methods:
                    allowed = ", ".join(methods)
                    raise Refusal(f"{request.method} is not for this address: send {allowed}.", 405)
                return view(request, *args, **kwargs)
            except Refusal as error:
                response = refused(error)
                if error.status == 405:
                    response.headers["Allow"] = ", ".join(methods)
                return response
            except RateError as error:
                response = refused(Refusal(str(error), 429))
                response.headers["Retry-After"] = str(error.wait)
                return response
            except (AuditError, DatabaseError) as error:
                logger.exception("Nothing was handed out: %s", type(error).__name__)
                return _later("The portal cannot record this now, so that nothing is handed out")
            except StoreError as error:
                logger.error("%s", error)
                return _later("The store cannot give this file now")

        return answered

    return decorate


def _later(what: str) -> HttpResponse:
    response = refused(Refusal(f"{what}: try again later, or write to the operators.", 503))
    response.headers["Retry-After"] = "30"
    return response
