"""What the API says of the catalogue: digests to anyone, sketches to few."""

import json
from datetime import timedelta

import pytest

from portal.access import decisions
from portal.accounts import tokens
from portal.audit.models import Event
from portal.catalog.manifests import sketch_path
from portal.catalog.models import Checkpoint

PLACE = "/api/v1/checkpoints"


@pytest.fixture
def sketch(checkpoint):
    path = sketch_path(checkpoint.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"schema": 1}')
    yield path
    path.unlink()


def token_of(person, *scopes, at):
    _, secret = tokens.make(person, scopes=scopes, by="tests", at=at)
    return {"Authorization": f"Bearer {secret}"}


def test_anyone_reads_what_is_published_and_where_its_manifest_lies(client, checkpoint):
    checkpoint.shards.filter(path="config.json").update(is_manifest=True)
    (found,) = client.get(PLACE).json()["checkpoints"]
    assert (found["name"], found["revision"], found["size"]) == ("llama/7b@1", 1, 100_000)
    assert [file["path"] for file in found["files"]] == ["a.bin"]
    assert "url" not in found["files"][0], "weights are not open"
    (side,) = found["manifest"]
    assert client.get(side["url"].split("8000")[1]).getvalue() == b"{}\n"


def test_pages_lead_to_each_other_and_end(client, family, at):
    for number in range(5):
        Checkpoint.objects.create(
            family=family, variant=f"v{number}", version="1", published_at=at, published_by="t"
        )
    seen, place = [], f"{PLACE}?limit=2"
    while place:
        page = client.get(place).json()
        seen += [one["name"] for one in page["checkpoints"]]
        place = page["next"] and page["next"].split("8000")[1]
    assert seen == [f"llama/v{number}@1" for number in range(5)]


def test_one_checkpoint_is_asked_for_by_name(client, checkpoint):
    assert len(client.get(f"{PLACE}?name=llama/7b@1").json()["checkpoints"]) == 1
    assert client.get(f"{PLACE}?name=llama/7b@2").json() == {"checkpoints": [], "next": None}
    assert client.get(f"{PLACE}?name=../x").status_code == 422


def test_what_has_not_changed_is_not_sent_again(client, checkpoint):
    etag = client.get(PLACE).headers["ETag"]
    assert client.get(PLACE, headers={"If-None-Match": etag}).status_code == 304
    Checkpoint.objects.update(revision=2)
    assert client.get(PLACE, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "after=-1", "after=1e9", f"after={2**64}"]
)
def test_a_page_out_of_bounds_is_a_problem(client, db, query):
    answer = client.get(f"{PLACE}?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_sketch_goes_to_a_grantee_and_a_reviewer_and_to_nobody_else(
    client, grant, applicant, reviewer, stranger, sketch, at
):
    place = f"{PLACE}/llama/7b@1/sketch"
    assert client.get(place).status_code == 401
    seen = {}
    for person in (applicant, reviewer, stranger):
        answer = client.get(place, headers=token_of(person, "verify", at=at))
        seen[person.email.partition("@")[0]] = answer.status_code
    assert seen == {"applicant": 200, "reviewer": 200, "stranger": 403}
    given = Event.objects.filter(action="sketch.given")
    assert {event.actor for event in given} == {applicant.actor, reviewer.actor}


def test_a_revoked_grant_closes_the_sketch_and_says_why(
    client, grant, applicant, reviewer, sketch, at
):
    decisions.revoke(grant, by=reviewer, reason="Project ended.", at=at - timedelta(seconds=1))
    answer = client.get(f"{PLACE}/llama/7b@1/sketch", headers=token_of(applicant, "read", at=at))
    assert answer.status_code == 403 and "Project ended." in answer.json()["detail"]


@pytest.mark.parametrize(
    ("scopes", "status"), [(["read"], 200), (["download"], 200), (["verify"], 200)]
)
def test_any_token_that_reads_or_verifies_opens_the_sketch(
    client, grant, applicant, sketch, at, scopes, status
):
    answer = client.get(f"{PLACE}/llama/7b@1/sketch", headers=token_of(applicant, *scopes, at=at))
    assert answer.status_code == status
    assert json.loads(answer.content) == {"schema": 1}
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_sketch_that_was_never_made_is_said_so(client, grant, applicant, at):
    answer = client.get(f"{PLACE}/llama/7b@1/sketch", headers=token_of(applicant, "read", at=at))
    assert answer.status_code == 404 and "No sketch" in answer.json()["detail"]


@pytest.mark.parametrize("place", ["/api/v1/downloads", "/api/v1/checkpoints"])
def test_a_method_that_is_not_known_is_a_problem_too(client, db, place):
    answer = client.delete(place)
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Allow"] in answer.json()["detail"]


def test_only_the_newest_manifest_is_listed(client, checkpoint, at):
    checkpoint.shards.filter(path="config.json").update(is_manifest=True, replaced_at=at)
    (found,) = client.get(PLACE).json()["checkpoints"]
    assert found["manifest"] == []
