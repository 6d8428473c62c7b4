"""How one's requests and grants stand at a portal, as lines for a terminal."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from verifier.names import shown

from .errors import PortalError
from .site import Site


def standing(site: Site) -> dict[str, Any]:
    """Return what the portal says of the token's person.

    Raises:
        PortalError: it answers what no portal of ours would.
    """
    answer = site.get_json("/api/v1/requests")
    if not isinstance(answer, dict) or not all(
        isinstance(answer.get(name), list) for name in ("requests", "grants")
    ):
        raise PortalError("The portal's answer does not say how requests stand.")
    return answer


def lines(answer: dict[str, Any]) -> Iterator[str]:
    """Write a standing for people: grants first, because that is what they wait for."""
    yield f"Signed in as {_clean(answer.get('person'))}"
    for grant in answer["grants"]:
        until = f"open until {_day(grant.get('expires_at'))}"
        state = until if grant.get("open") is True else _clean(grant.get("reason"))
        yield f"  grant {_clean(grant.get('id'))}, {_clean(grant.get('checkpoint'))}: {state}"
    for one in answer["requests"]:
        place = one.get("place")
        queue = f", place {_clean(place)} in the queue" if place else ""
        name = f"request {_clean(one.get('id'))}, {_clean(one.get('family'))}"
        yield f"  {name}: {_clean(one.get('words'))}{queue}"
        if one.get("reason"):
            yield f"    a reviewer wrote: {_clean(one['reason'])}"
        if one.get("apply_again_at"):
            yield f"    you may apply again from {_day(one['apply_again_at'])}"
    if not answer["grants"] and not answer["requests"]:
        yield "  You have not applied for anything yet."


def _clean(value: object) -> str:
    """Return a value of the answer on one line, without what could steer a terminal."""
    return shown(" ".join(str(value).split()))[:500]


def _day(value: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(value)):%d %B %Y}"
    except ValueError:
        return _clean(value)
