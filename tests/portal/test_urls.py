"""A walk over every address of the site, with the status that each role must get.

A view without a row fails the walk: whoever adds one says here who may see it.
"""

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from portal.delivery import signers
from tests.portal.hub.conftest import sign

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
    "terms": ("/families/llama/terms/", 200, 200, 200, 200),
    "acceptances": ("/acceptances/", 302, 200, 200, 200),
    "acceptance": ("/acceptances/{acceptance}/", 302, 200, 404, 200),
    "acceptance-pdf": ("/acceptances/{acceptance}/terms.pdf", 302, 200, 404, 200),
    "apply": ("/families/llama/apply/", 302, 405, 405, 405),
    "requests": ("/requests/", 302, 200, 200, 200),
    "request": ("/requests/{request}/", 302, 200, 404, 404),
    "request-edit": ("/requests/{request}/edit/", 302, 302, 404, 404),
    "request-step": ("/requests/{request}/edit/2/", 302, 302, 404, 404),
    "request-save": ("/requests/{request}/edit/2/save/", 405, 405, 405, 405),
    "attachment": ("/requests/{request}/files/{file}/", 302, 200, 404, 200),
    "request-check": ("/requests/{request}/check/", 302, 302, 404, 404),
    "request-message": ("/requests/{request}/messages/", 302, 405, 405, 405),
    "request-appeal": ("/requests/{request}/appeal/", 302, 405, 405, 405),
    "request-copy": ("/requests/{request}/copy/", 302, 405, 405, 405),
    "request-withdraw": ("/requests/{request}/withdraw/", 302, 405, 405, 405),
    "my-access": ("/access/", 302, 200, 200, 200),
    "urls": ("/access/{grant}/urls/", 302, 405, 405, 405),
    "shard": ("/d/{grant}/{shard}/a.bin", 403, 403, 403, 403),
    "probe": ("/d/check/.weighbridge-check-00000000000000000000000000000000", 403, 403, 403, 403),
    "manifest": ("/manifests/llama/7b@1/files/model.sig", 200, 200, 200, 200),
    "tokens": ("/account/tokens/", 302, 200, 200, 200),
    "token-revoke": ("/account/tokens/1/revoke/", 302, 405, 405, 405),
    "device": ("/device/", 302, 200, 200, 200),
    "api:get_form": ("/api/v1/families/llama/form", 401, 401, 401, 401),
    "api:make_request": ("/api/v1/families/llama/requests", 405, 405, 405, 405),
    "api:list_requests": ("/api/v1/requests", 401, 401, 401, 401),
    "api:ask_device_code": ("/api/v1/device/code", 405, 405, 405, 405),
    "api:ask_device_token": ("/api/v1/device/token", 405, 405, 405, 405),
    "identity": ("/account/identity/", 302, 200, 200, 200),
    "identity-about": ("/account/identity/about/", 302, 405, 405, 405),
    "referee-ask": ("/account/identity/referees/", 302, 405, 405, 405),
    "referee-resend": ("/account/identity/referees/{referral}/resend/", 302, 405, 405, 405),
    "referee-withdraw": ("/account/identity/referees/{referral}/withdraw/", 302, 405, 405, 405),
    "referee-replace": ("/account/identity/referees/{referral}/replace/", 302, 200, 404, 404),
    "refer": ("/account/refer/", 404, 404, 404, 404),
    "data": ("/account/data/", 302, 200, 200, 200),
    "data-export": ("/account/data/export/", 302, 405, 405, 405),
    "sessions": ("/account/sessions/", 302, 200, 200, 200),
    "sessions-end-others": ("/account/sessions/end-others/", 302, 405, 405, 405),
    "session-end": ("/account/sessions/1/end/", 302, 405, 405, 405),
    "verifications": ("/verifications/", 302, 200, 200, 200),
    "verification": ("/verifications/{check}/", 302, 200, 404, 200),
    "report-json": ("/verifications/{check}/report.json", 302, 404, 404, 404),
    "report-html": ("/verifications/{check}/report.html", 302, 404, 404, 404),
    "api:report_leaked": ("/api/v1/tokens/leaked", 405, 405, 405, 405),
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
    # here a token says who asks, and being signed in counts for nothing
    "hub-device": ("/oauth/device", 405, 405, 405, 405),
    "hub-token": ("/oauth/token", 405, 405, 405, 405),
    "hub-whoami": ("/api/whoami-v2", 401, 401, 401, 401),
    "hub-models": ("/api/models", 200, 200, 200, 200),
    "hub-info": ("/api/models/llama/7b", 200, 200, 200, 200),
    "hub-revision": ("/api/models/llama/7b/revision/1", 200, 200, 200, 200),
    "hub-tree": ("/api/models/llama/7b/tree/1", 200, 200, 200, 200),
    "hub-folder": ("/api/models/llama/7b/tree/1/.weighbridge", 200, 200, 200, 200),
    "hub-paths": ("/api/models/llama/7b/paths-info/1", 405, 405, 405, 405),
    "hub-refs": ("/api/models/llama/7b/refs", 200, 200, 200, 200),
    "hub-commits": ("/api/models/llama/7b/commits/1", 200, 200, 200, 200),
    "hub-check": ("/api/models/llama/7b/auth-check", 401, 401, 401, 401),
    "hub-requests": ("/api/models/llama/7b/user-access-request/pending", 401, 401, 401, 401),
    "hub-handle": ("/api/models/llama/7b/user-access-request/handle", 405, 405, 405, 405),
    "hub-grant": ("/api/models/llama/7b/user-access-request/grant", 405, 405, 405, 405),
    "hub-unknown": ("/api/models/gpt2", 404, 404, 404, 404),
    "hub-resolve": ("/llama/7b/resolve/1/a.bin", 401, 401, 401, 401),
}
ADMIN = {
    "/admin/": (302, 302, 302, 200),
    "/admin/access/accessrequest/": (302, 302, 302, 200),
    "/admin/access/accessrequest/{request}/change/": (302, 302, 302, 200),
    "/admin/access/accessrequest/{request}/decide/approve/": (302, 302, 302, 200),
    "/admin/access/accessrequest/{request}/decide/other/": (302, 302, 302, 403),
    "/admin/access/accessrequest/{request}/message/": (302, 302, 302, 200),
    "/admin/access/accessrequest/add/": (302, 302, 302, 403),
    "/admin/access/accessrequest/{request}/delete/": (302, 302, 302, 403),
    "/admin/access/grant/": (302, 302, 302, 200),
    "/admin/access/grant/{grant}/change/": (302, 302, 302, 200),
    "/admin/access/grant/{grant}/revoke/": (302, 302, 302, 200),
    "/admin/access/formversion/": (302, 302, 302, 200),
    "/admin/access/formversion/{form}/change/": (302, 302, 302, 200),
    "/admin/access/formversion/add/": (302, 302, 302, 403),
    "/admin/access/decision/": (302, 302, 302, 200),
    "/admin/audit/event/": (302, 302, 302, 200),
    "/admin/audit/event/1/change/": (302, 302, 302, 200),
    "/admin/catalog/terms/": (302, 302, 302, 200),
    "/admin/catalog/terms/add/": (302, 302, 302, 403),
    "/admin/catalog/checkpoint/": (302, 302, 302, 200),
    "/admin/catalog/notice/": (302, 302, 302, 403),
    "/admin/delivery/download/": (302, 302, 302, 200),
    "/admin/verification/verification/": (302, 302, 302, 200),
    "/admin/verification/challenge/": (302, 302, 302, 403),
    "/admin/outbox/message/": (302, 302, 302, 403),
    "/admin/accounts/apitoken/": (302, 302, 302, 403),
    "/admin/accounts/user/": (302, 302, 302, 200),
    "/admin/accounts/domainentry/": (302, 302, 302, 403),
    "/admin/accounts/referral/": (302, 302, 302, 403),
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
    from portal.access.models import Attachment
    from portal.accounts import referrals
    from portal.storage.stores import store
    from portal.verification import challenges
    from portal.verification.models import Verification

    referral = referrals.ask(
        applicant, name="R", address="r@uni.example", relation="colleague", at=at
    )
    sign(checkpoint)
    check = Verification.objects.create(
        asked_by=applicant, source="urls", what=["https://x.example/a"], created_at=at
    )
    store().put_bytes("attachments/walk", b"plan")
    file = Attachment.objects.create(
        request=application,
        question="plan",
        name="plan.txt",
        size=4,
        sha256="0" * 64,
        media_type="text/plain",
        store_key="attachments/walk",
        added_at=at,
    )
    checkpoint.has_reference = True
    checkpoint.save()
    yield {
        "challenge": challenges.draw(applicant, checkpoint, at=at).pk,
        "request": application.pk,
        "file": file.pk,
        "acceptance": applicant.acceptances.get().pk,
        "form": application.form_version_id,
        "grant": grant.pk,
        "shard": checkpoint.shards.get(path="a.bin").pk,
        "check": check.pk,
        "referral": referral.pk,
    }
    store().delete("attachments/walk")


def _clients(client, *people):
    from django.test import Client

    yield client
    for person in people:
        signed_in = Client()
        signed_in.force_login(person)
        yield signed_in


def test_every_view_has_a_row():
    assert set(_names(get_resolver().url_patterns)) == set(WALK)


def status_of(answer):
    answer.getvalue()  # read to its end, a file is closed
    return answer.status_code


def test_each_role_gets_what_it_may(client, applicant, stranger, reviewer, places):
    clients = list(_clients(client, applicant, stranger, reviewer))
    for name, (place, *statuses) in WALK.items():
        seen = [status_of(one.get(place.format(**places))) for one in clients]
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
    for page in (
        "email",
        "logout",
        "password/change",
        "2fa",
        "2fa/webauthn",
        "reauthenticate",
        "elsewhere",
    ):
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
    query = signers.sign(grant.pk, places["shard"], method="GET", expires_at=grant.expires_at)
    answer = client.get(f"/d/{places['grant']}/{places['shard']}/a.bin?{query}")
    assert (answer.status_code, len(answer.getvalue())) == (200, 100_000)
