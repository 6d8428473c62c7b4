"""A walk over every address of the site, with the status that each role must get.

A view without a row fails the walk: whoever adds one says here who may see it.
"""

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from portal.delivery.signers import sign

NOBODY, APPLICANT, STRANGER, REVIEWER = range(4)
# name → (status for nobody signed in, the applicant, a stranger, a reviewer); 302 is to sign in
WALK = {
    "home": ("/", 200, 200, 200, 200),
    "verify": ("/verify/", 200, 200, 200, 200),
    "report-css": ("/report.css", 200, 200, 200, 200),
    "family": ("/families/llama/", 200, 200, 200, 200),
    "root": ("/root.json", 200, 200, 200, 200),
    "root-version": ("/1.root.json", 200, 200, 200, 200),
    "latest": ("/latest.json", 200, 200, 200, 200),
    "apply": ("/families/llama/apply/", 302, 405, 405, 405),
    "requests": ("/requests/", 302, 200, 200, 200),
    "request": ("/requests/{request}/", 302, 200, 404, 404),
    "request-edit": ("/requests/{request}/edit/", 302, 302, 404, 404),
    "request-check": ("/requests/{request}/check/", 302, 302, 404, 404),
    "request-withdraw": ("/requests/{request}/withdraw/", 302, 405, 405, 405),
    "my-access": ("/access/", 302, 200, 200, 200),
    "urls": ("/access/{grant}/urls/", 302, 405, 405, 405),
    "shard": ("/d/{grant}/{shard}/a.bin", 403, 403, 403, 403),
    "manifest": ("/manifests/llama/7b@1/files/model.sig", 404, 404, 404, 404),
    "tokens": ("/account/tokens/", 302, 200, 200, 200),
    "token-revoke": ("/account/tokens/1/revoke/", 302, 405, 405, 405),
    "verifications": ("/verifications/", 302, 200, 200, 200),
    "verification": ("/verifications/{check}/", 302, 200, 404, 200),
    "report-json": ("/verifications/{check}/report.json", 302, 404, 404, 404),
    "report-html": ("/verifications/{check}/report.html", 302, 404, 404, 404),
    "challenges": ("/challenges/", 302, 200, 200, 200),
    "challenge": ("/challenges/{challenge}/", 302, 200, 404, 404),
    "challenge-file": ("/challenges/{challenge}/challenge.json", 302, 200, 404, 404),
    "api:draw_challenge": ("/api/v1/challenges", 405, 405, 405, 405),
    "api:answer_challenge": ("/api/v1/challenges/{challenge}/answer", 405, 405, 405, 405),
    "api:get_challenge": ("/api/v1/challenges/{challenge}", 401, 401, 401, 401),
    "api:make_download": ("/api/v1/downloads", 405, 405, 405, 405),
    "api:list_checkpoints": ("/api/v1/checkpoints", 200, 200, 200, 200),
    "api:get_sketch": ("/api/v1/checkpoints/llama/7b@1/sketch", 401, 401, 401, 401),
    "api:openapi-json": ("/api/v1/openapi.json", 200, 200, 200, 200),
    "api:api-root": ("/api/v1/", 404, 404, 404, 404),
}
ADMIN = {
    "/admin/": (302, 302, 302, 200),
    "/admin/access/accessrequest/": (302, 302, 302, 200),
    "/admin/access/accessrequest/{request}/change/": (302, 302, 302, 200),
    "/admin/access/accessrequest/{request}/decide/approve/": (302, 302, 302, 200),
    "/admin/access/accessrequest/{request}/decide/other/": (302, 302, 302, 403),
    "/admin/access/accessrequest/add/": (302, 302, 302, 403),
    "/admin/access/accessrequest/{request}/delete/": (302, 302, 302, 403),
    "/admin/access/grant/": (302, 302, 302, 200),
    "/admin/access/grant/{grant}/change/": (302, 302, 302, 200),
    "/admin/access/grant/{grant}/revoke/": (302, 302, 302, 200),
    "/admin/access/decision/": (302, 302, 302, 200),
    "/admin/audit/event/": (302, 302, 302, 200),
    "/admin/audit/event/1/change/": (302, 302, 302, 200),
    "/admin/catalog/checkpoint/": (302, 302, 302, 200),
    "/admin/catalog/notice/": (302, 302, 302, 403),
    "/admin/delivery/download/": (302, 302, 302, 200),
    "/admin/verification/verification/": (302, 302, 302, 200),
    "/admin/verification/challenge/": (302, 302, 302, 403),
    "/admin/outbox/message/": (302, 302, 302, 403),
    "/admin/accounts/apitoken/": (302, 302, 302, 403),
    "/admin/accounts/user/": (302, 302, 302, 200),
}


def _names(patterns, space=""):
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            if pattern.app_name in ("admin",) or "allauth" in str(pattern.urlconf_name):
                continue
            inner = f"{pattern.namespace}:" if pattern.namespace else space
            yield from _names(pattern.url_patterns, inner)
        elif isinstance(pattern, URLPattern):
            yield f"{space}{pattern.name}"


@pytest.fixture
def places(grant, application, checkpoint, applicant, at):
    from portal.verification.models import Verification

    check = Verification.objects.create(
        asked_by=applicant, source="urls", what=["https://x.example/a"], created_at=at
    )
    from portal.verification import challenges

    checkpoint.has_reference = True
    checkpoint.save()
    return {
        "challenge": challenges.draw(applicant, checkpoint, at=at).pk,
        "request": application.pk,
        "grant": grant.pk,
        "shard": checkpoint.shards.first().pk,
        "check": check.pk,
    }


def _clients(client, *people):
    from django.test import Client

    yield client
    for person in people:
        signed_in = Client()
        signed_in.force_login(person)
        yield signed_in


def test_every_view_has_a_row():
    assert set(_names(get_resolver().url_patterns)) == set(WALK)


def test_each_role_gets_what_it_may(client, applicant, stranger, reviewer, places):
    clients = list(_clients(client, applicant, stranger, reviewer))
    for name, (place, *statuses) in WALK.items():
        seen = [one.get(place.format(**places)).status_code for one in clients]
        assert seen == statuses, name


def test_each_role_gets_what_it_may_in_the_admin(client, applicant, stranger, reviewer, places):
    clients = list(_clients(client, applicant, stranger, reviewer))
    for place, statuses in ADMIN.items():
        seen = tuple(one.get(place.format(**places)).status_code for one in clients)
        assert seen == statuses, place


def test_the_account_pages_answer(client, applicant):
    for page in ("login", "signup", "password/reset", "confirm-email"):
        assert client.get(f"/account/{page}/").status_code == 200
    client.force_login(applicant)
    for page in ("email", "logout", "password/change"):
        assert client.get(f"/account/{page}/").status_code == 200


def test_facts_are_read_only_in_the_admin_even_for_an_operator(client, operator, places):
    client.force_login(operator)
    for place in ("access/grant/{grant}", "access/accessrequest/{request}", "audit/event/1"):
        page = client.get(f"/admin/{place.format(**places)}/change/")
        assert page.status_code == 200
        assert b'name="_save"' not in page.content
        assert client.get(f"/admin/{place.format(**places)}/delete/").status_code == 403


def test_a_page_may_load_nothing_from_elsewhere(client, db):
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy


def test_a_signed_url_opens_its_shard_to_whoever_has_it(client, places, grant):
    query = sign(grant.pk, places["shard"], method="GET", expires_at=grant.expires_at)
    answer = client.get(f"/d/{places['grant']}/{places['shard']}/a.bin?{query}")
    assert (answer.status_code, len(answer.getvalue())) == (200, 100_000)
