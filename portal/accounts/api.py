"""The part of the API that is about accounts; `portal.delivery.api` takes it in."""

from typing import Any

from django.http import HttpRequest
from django.utils.timezone import now
from ninja import Field, Router, Schema, Status

from portal.accounts import leaked
from portal.accounts.addresses import address_of
from portal.accounts.rates import count

router = Router()

MOST_TOKENS = 100
REPORTS_PER_MINUTE = 30


class FoundIn(Schema):
    """One token that was found in the open, and where; type and source are read by nobody here."""

    token: str = Field(max_length=200)
    type: str = Field("", max_length=200)
    url: str = Field("", max_length=2000)
    source: str = Field("", max_length=200)


class ReceivedOut(Schema):
    """How many entries the report had. It says nothing of what they were."""

    received: int


@router.post("/tokens/leaked", auth=None, response={202: ReceivedOut})
def report_leaked(request: HttpRequest, found: list[FoundIn]) -> Any:
    """Take a report of leaked tokens: each of ours is revoked at once and its owner told."""
    count("leaked", address_of(request) or "unknown", most=REPORTS_PER_MINUTE, seconds=60)
    leaked.report([(one.token, one.url) for one in found[:MOST_TOKENS]], at=now())
    return Status(202, {"received": min(len(found), MOST_TOKENS)})
