"""What was typed on a page whose session or token ended meanwhile is not lost.

Until its person signs in again it lies in the browser's own session, and is taken up on the page
that it came from, if the application is theirs.
"""

from django.http import HttpRequest, HttpResponse, QueryDict
from django.middleware.csrf import CsrfViewMiddleware

KEY = "typed-before-signing-in"
MOST = 200_000  # characters


class _Look(CsrfViewMiddleware):
    """Django's check of the token, which tells its verdict instead of answering with a page."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return HttpResponse(reason, status=403)


def token_fault(request: HttpRequest) -> bool:
    """Whether the request does not carry the token that this browser was given."""
    look = _Look(lambda _: HttpResponse())
    look.process_request(request)
    return look.process_view(request, lambda _: HttpResponse(), (), {}) is not None


def keep(request: HttpRequest, pk: int, number: int) -> bool:
    """Keep what was typed on a page for when its person has signed in again; say whether it is.

    Nothing is kept from a page that is not ours, nor of more than any page of ours holds.
    """
    data = request.POST.copy()
    data.pop("csrfmiddlewaretoken", None)
    text = data.urlencode()
    if token_fault(request) or len(text) > MOST:
        return False
    request.session[KEY] = {"pk": pk, "number": number, "data": text}
    return True


def take_up(request: HttpRequest, pk: int, number: int) -> QueryDict | None:
    """Return, once, what was typed on this page before its person was signed out."""
    kept = request.session.get(KEY)
    if not kept or (kept["pk"], kept["number"]) != (pk, number):
        return None
    del request.session[KEY]
    return QueryDict(kept["data"])
