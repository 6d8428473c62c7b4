"""What was typed on a page whose session or token ended meanwhile is not lost.

Until its person signs in again it lies in the browser's own session, and is taken up on the page
that it came from, if the application is theirs.
"""

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, QueryDict
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import reverse

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


def keep(request: HttpRequest, pk: int, place: int | str) -> bool:
    """Keep what was typed on a page for when its person has signed in again; say whether it is.

    Nothing is kept from a page that is not ours, nor of more than any page of ours holds.
    """
    data = request.POST.copy()
    data.pop("csrfmiddlewaretoken", None)
    text = data.urlencode()
    if token_fault(request) or len(text) > MOST:
        return False
    request.session[KEY] = {"pk": pk, "place": place, "data": text}
    return True


def take_up(request: HttpRequest, pk: int, place: int | str) -> QueryDict | None:
    """Return, once, what was typed at this place before its person was signed out."""
    kept = request.session.get(KEY)
    if not kept or (kept.get("pk"), kept.get("place")) != (pk, place):
        return None
    del request.session[KEY]
    return QueryDict(kept["data"])


View = Callable[..., HttpResponse]


def sign_in_first(page: str, *, keeps: str = "") -> Callable[[View], View]:
    """Send who is not signed in to do so, and then to ``page``, where the form is: the address of
    a form cannot be opened. What was typed waits there as ``keeps``, where that is given."""

    def decorate(view: View) -> View:
        @wraps(view)
        def decorated(request: HttpRequest, **where: int | str) -> HttpResponse:
            if request.user.is_authenticated:
                return view(request, **where)
            if keeps and request.method == "POST":
                keep(request, int(where["pk"]), keeps)
            return redirect_to_login(reverse(page, kwargs=where))

        return decorated

    return decorate
