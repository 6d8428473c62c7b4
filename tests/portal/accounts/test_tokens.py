"""What a token opens: for what, which checkpoint, from where, until when."""

import json

import pytest

from portal.accounts import tokens
from portal.accounts.models import ApiToken
from portal.audit.models import Event
from portal.outbox.models import Message
from tests.conftest import sign_in


def made(user, at, **more):
    return tokens.make(user, scopes=["download"], by="tests", at=at, **more)


def ask(client, secret, **more):
    return client.post(
        "/api/v1/downloads",
        json.dumps({"checkpoint": "llama/7b@1"}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
        **more,
    )


def refusal(answer):
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


@pytest.mark.parametrize(
    ("ranges", "address", "opens"),
    [
        ([], "198.51.100.9", True),
        (["192.0.2.0/24"], "192.0.2.200", True),
        (["192.0.2.0/24"], "192.0.3.1", False),
        (["192.0.2.0/24"], "::ffff:192.0.2.1", True),
        (["2001:db8::/32"], "2001:db8::1", True),
        (["2001:db8::/32"], "192.0.2.1", False),
        (["198.51.100.7", "2001:db8::/32"], "198.51.100.7", True),
        (["192.0.2.0/24"], "", False),
    ],
)
def test_a_token_opens_only_to_its_addresses(client, grant, applicant, at, ranges, address, opens):
    _, secret = made(applicant, at, ranges=ranges)
    answer = ask(client, secret, REMOTE_ADDR=address)
    if opens:
        assert answer.status_code == 201
    else:
        status, says = refusal(answer)
        assert status == 403 and "may not be used from" in says


def test_a_token_bound_to_a_checkpoint_opens_no_other(client, grant, applicant, at):
    _, right = made(applicant, at, checkpoint="llama/7b@1")
    _, other = made(applicant, at, checkpoint="llama/7b@2")
    assert ask(client, right).status_code == 201
    status, says = refusal(ask(client, other))
    assert status == 403 and "for llama/7b@2 only" in says


def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_saw(
    client, grant, applicant, at, settings
):
    _, secret = made(applicant, at, ranges=["192.0.2.0/24"])
    forged = {"HTTP_X_FORWARDED_FOR": "192.0.2.1, 203.0.113.5"}
    assert ask(client, secret, REMOTE_ADDR="192.0.2.1", **forged).status_code == 201
    settings.BEHIND_PROXY = True
    assert ask(client, secret, REMOTE_ADDR="192.0.2.1", **forged).status_code == 403


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"ranges": ["192.0.2.0/33"]}, "no range of addresses"),
        ({"ranges": ["10.0.0.0/8"] * 33}, "at most 32"),
        ({"checkpoint": "../../etc"}, "no checkpoint's name"),
    ],
)
def test_a_token_that_cannot_be_is_refused_in_a_sentence(applicant, at, more, says):
    with pytest.raises(tokens.TokenError, match=says):
        made(applicant, at, **more)


def test_nobody_has_tokens_without_end(applicant, at, monkeypatch):
    monkeypatch.setattr(tokens, "MOST_IN_FORCE", 1)
    first, _ = made(applicant, at)
    with pytest.raises(tokens.TokenError, match="revoke one first"):
        made(applicant, at)
    tokens.revoke(first, by="tests", at=at)
    made(applicant, at)


def test_a_scope_opens_itself_and_only_downloading_includes_reading(applicant, at):
    for scope in ApiToken.Scope.values:
        token, _ = tokens.make(applicant, scopes=[scope], by="tests", at=at)
        opened = {other for other in ApiToken.Scope.values if token.allows(other)}
        assert opened == ({"download", "read"} if scope == "download" else {scope})


def test_the_page_makes_a_token_for_one_checkpoint_and_place(client, applicant):
    sign_in(client, applicant)
    form = {"name": "cluster", "scopes": ["apply"], "days": 3, "checkpoint": "llama/7b@1"}
    wrong = client.post("/account/tokens/", form | {"ranges": "here"})
    assert "no range of addresses" in wrong.text and not ApiToken.objects.exists()
    page = client.post("/account/tokens/", form | {"ranges": "192.0.2.7/24\n2001:db8::/32"})
    token = ApiToken.objects.get()
    assert token.ranges == ["192.0.2.0/24", "2001:db8::/32"]
    assert "llama/7b@1 only, from 192.0.2.0/24, 2001:db8::/32" in page.text


# -- reported as leaked -----------------------------------------------------------------------
def leak(client, *secrets):
    return client.post(
        "/api/v1/tokens/leaked",
        json.dumps(
            [{"token": s, "type": "weighbridge", "url": "https://gist.example/x"} for s in secrets]
        ),
        content_type="application/json",
    )


def test_a_leaked_token_ends_at_once_and_its_owner_is_told(client, grant, applicant, at):
    token, secret = made(applicant, at, name="cluster")
    assert leak(client, secret).status_code == 202
    assert ask(client, secret).status_code == 401
    message = Message.objects.get(kind="token.leaked")
    assert message.to == applicant and "cluster" in message.body and secret not in message.body
    event = Event.objects.get(action="token.revoked", subject=token.subject)
    assert json.loads(event.detail) == {"host": "gist.example", "why": "reported as leaked"}
    client.force_login(applicant)
    assert "reported as leaked" in client.get("/account/tokens/").text


def test_a_report_is_answered_alike_whether_or_not_a_token_was_ours(client, applicant, at):
    token, secret = made(applicant, at)
    answers = [leak(client, given) for given in (secret, secret, "hf_" + "a" * 40)]
    assert {(a.status_code, a.content) for a in answers} == {(202, b'{"received": 1}')}
    assert Message.objects.filter(kind="token.leaked").count() == 1


def test_reports_are_limited(client, db):
    statuses = [leak(client, "x").status_code for _ in range(31)]
    assert statuses[:30] == [202] * 30 and statuses[30] == 429
    assert int(leak(client, "x").headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    "body", ["{}", "[1]", '[{"url": "x"}]', "[", '[{"token": "%s"}]' % ("a" * 999)]
)
def test_a_report_of_another_shape_is_refused_in_a_sentence(client, db, body):
    answer = client.post("/api/v1/tokens/leaked", body, content_type="application/json")
    status, says = refusal(answer)
    assert status in (400, 422) and says.endswith(".")
