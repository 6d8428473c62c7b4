"""Names and digests are open; who sends a token is told how they stand."""

import hashlib
from datetime import timedelta

import pytest

from portal.access import applications, decisions
from portal.accounts import tokens
from portal.catalog import notices
from portal.catalog.models import Checkpoint, Terms
from portal.storage.stores import store
from tests.conftest import ANSWERS
from tests.portal.hub.conftest import add_file, git_sha1, sign

INFO, TREE = "/api/models/llama/7b", "/api/models/llama/7b/tree/main"


@pytest.fixture
def second(repository, at):
    """The next version."""
    made = Checkpoint.objects.create(
        family=repository.family,
        variant="7b",
        version="2",
        published_at=at + timedelta(seconds=1),
        published_by="t",
    )
    shards = [sign(made, b"signed again"), add_file(made, "c.bin", b"c")]
    yield made
    for shard in [*shards, made.shards.get(path=".weighbridge/checkpoint.json")]:
        store().delete(shard.store_key)


def test_the_files_of_a_repository_are_listed_to_anyone(client, repository, commit):
    said = client.get(INFO).json()
    assert (said["id"], said["sha"], said["gated"]) == ("llama/7b", commit, "manual")
    assert [file["rfilename"] for file in said["siblings"]] == [
        ".weighbridge/checkpoint.json",
        "a.bin",
        "config.json",
        "model.sig",
        "sub dir/b.bin",
    ]


def test_info_tells_sizes_and_digests_when_asked_for_blobs(client, repository):
    files = {
        each["rfilename"]: each for each in client.get(f"{INFO}?blobs=true").json()["siblings"]
    }
    assert files["a.bin"]["lfs"]["sha256"] == hashlib.sha256(bytes(range(250)) * 400).hexdigest()
    assert files["config.json"]["blobId"] == git_sha1(b"{}\n")
    assert "lfs" not in files["config.json"]


@pytest.mark.parametrize("revision", ["main", "1", "commit"])
def test_a_version_its_commit_and_main_are_the_same_revision(client, repository, commit, revision):
    revision = commit if revision == "commit" else revision
    answer = client.get(f"{INFO}/revision/{revision}")
    assert answer.json()["sha"] == answer.headers["X-Repo-Commit"] == commit


def test_main_is_the_newest_version(client, second, commit):
    assert client.get(f"{INFO}/revision/1").json()["sha"] == commit
    newest = hashlib.sha256(b"signed again").hexdigest()[:40]
    assert client.get(INFO).json()["sha"] == newest
    refs = client.get(f"{INFO}/refs").json()
    assert refs["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": newest}]
    assert [tag["name"] for tag in refs["tags"]] == ["2", "1"]
    commits = client.get(f"{INFO}/commits/main").json()
    assert [each["id"] for each in commits] == [newest, commit]
    assert [each["id"] for each in client.get(f"{INFO}/commits/1").json()] == [commit]


def test_a_commit_stays_good_after_the_manifest_is_signed_again(client, repository, commit, at):
    repository.shards.filter(path="model.sig").update(replaced_at=at)
    new = add_file(repository, "model.sig", b"revision 2", replaced_at=None)
    old = client.get(f"{INFO}/revision/{commit}").json()
    assert old["sha"] == commit
    assert client.get(INFO).json()["sha"] == new.sha256[:40]
    kept = client.get(f"/llama/7b/resolve/{commit}/model.sig")
    assert kept.getvalue() == b"signed"
    assert client.get("/llama/7b/resolve/main/model.sig").getvalue() == b"revision 2"


def test_a_checkpoint_without_a_signed_manifest_is_no_repository(client, checkpoint):
    assert client.get(INFO).headers["X-Error-Code"] == "RepoNotFound"


def test_large_files_are_lfs_objects_and_small_texts_are_git_blobs(client, repository):
    rows = {row["path"]: row for row in client.get(f"{TREE}?recursive=True").json()}
    lfs = rows["a.bin"]["lfs"]
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{lfs['oid']}\nsize 100000\n"
    assert lfs["pointerSize"] == len(pointer)
    assert rows["a.bin"]["oid"] == git_sha1(pointer.encode())
    assert rows["config.json"] == {
        "type": "file",
        "path": "config.json",
        "size": 3,
        "oid": git_sha1(b"{}\n"),
    }
    assert rows["sub dir"]["type"] == "directory"
    assert not any("xetHash" in row for row in rows.values())


def test_a_folder_is_listed_by_itself(client, repository):
    top = {row["path"] for row in client.get(TREE).json()}
    assert "sub dir" in top and "sub dir/b.bin" not in top
    for name in ("sub dir", "sub%20dir", "sub dir/"):
        assert [row["path"] for row in client.get(f"{TREE}/{name}").json()] == ["sub dir/b.bin"]
    answer = client.get(f"{TREE}/other")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")


def test_pages_of_a_tree_lead_to_each_other_and_end(client, repository):
    seen, place = [], f"{TREE}?recursive=true&limit=2"
    while place:
        answer = client.get(place)
        seen += [row["path"] for row in answer.json()]
        link = answer.headers.get("Link", "")
        assert not link or link.endswith('>; rel="next"')
        place = link and link[1:].split(">")[0].split("8000")[1]
    whole = [row["path"] for row in client.get(f"{TREE}?recursive=true").json()]
    assert seen == whole and len(whole) == 7


def test_a_page_of_a_folder_with_a_space_leads_on(client, repository):
    add_file(repository, "sub dir/c.bin", b"c")
    first = client.get(f"{TREE}/sub%20dir?limit=1")
    place = first.headers["Link"][1:].split(">")[0]
    assert "/sub%20dir?" in place
    assert [row["path"] for row in client.get(place.split("8000")[1]).json()] == ["sub dir/c.bin"]


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "cursor=²", "cursor=9" * 9])
def test_a_page_that_cannot_be_is_a_whole_or_an_empty_one(client, repository, query):
    assert client.get(f"{TREE}?{query}").status_code == 200


def test_paths_are_looked_up_in_one_request(client, repository):
    place = "/api/models/llama/7b/paths-info/main"
    rows = client.post(place, {"paths": ["a.bin", "sub dir", "../x", "a.bin"]}).json()
    assert [row["path"] for row in rows] == ["a.bin", "sub dir"]


def test_repositories_are_found_by_name(client, second):
    def found(query=""):
        return [row["id"] for row in client.get(f"/api/models?{query}").json()]

    assert found() == found("search=LLAMA/7") == found("author=llama") == ["llama/7b"]
    assert found("search=mistral") == found("author=x") == []


def test_pages_of_repositories_lead_to_each_other(client, second, at):
    other = Checkpoint.objects.create(
        family=second.family, variant="13b", version="1", published_at=at, published_by="t"
    )
    bundle = add_file(other, "model.sig", b"13b")
    first = client.get("/api/models?limit=1")
    assert [row["id"] for row in first.json()] == ["llama/7b"]
    following = client.get(first.headers["Link"][1:].split(">")[0].split("8000")[1])
    assert [row["id"] for row in following.json()] == ["llama/13b"]
    assert "Link" not in following.headers
    store().delete(bundle.store_key)


def test_whoami_tells_whose_token_it_is(client, applicant, headers_of):
    said = client.get("/api/whoami-v2", headers=headers_of(applicant)).json()
    assert (said["name"], said["orgs"]) == ("applicant@uni.example", [])
    assert said["auth"]["accessToken"]["role"] == "read"
    review = client.get("/api/whoami-v2", headers=headers_of(applicant, "review")).json()
    assert review["auth"]["accessToken"]["role"] == "write"


@pytest.mark.parametrize("place", [INFO, TREE, f"{INFO}/refs", "/api/models", "/api/whoami-v2"])
@pytest.mark.parametrize("sent", ["Bearer hf_unknown", "Basic eDp5", "Bearer", "Bearer a b"])
def test_a_bad_token_is_refused_even_where_none_is_needed(client, repository, place, sent):
    answer = client.get(place, headers={"Authorization": sent})
    assert answer.status_code == 401
    # the clients compare the whole of it; the advice is in the header that they print
    assert answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
    assert "/account/tokens/" in answer.headers["X-HF-Warning"]


def test_a_revoked_token_is_refused_like_an_unknown_one(client, repository, applicant, at):
    token, secret = tokens.make(applicant, scopes=["read"], by="tests", at=at)
    tokens.revoke(token, by="tests", at=at)
    answer = client.get(INFO, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 401 and "revoked" in answer.headers["X-HF-Warning"]


def test_nobody_is_warned_who_did_not_say_who_they_are(client, repository):
    for place in (INFO, TREE):
        assert "X-HF-Warning" not in client.get(place).headers


def test_the_end_of_a_grant_is_told(client, repository, grant, mine):
    said = client.get(INFO, headers=mine).headers["X-HF-Warning"]
    assert said.startswith("llama/7b@1; Your access to llama/7b@1 ends on ")
    assert f"{grant.expires_at:%d %B %Y}" in said


@pytest.mark.parametrize(("days", "says"), [(9, "unless you accept"), (-1, "The grant rests")])
def test_newer_terms_are_told_before_and_after_their_date(
    client, repository, grant, mine, at, days, says
):
    newest = repository.family.terms
    Terms.objects.create(
        family=repository.family,
        version=newest.version + 1,
        text="New.",
        sha256=Terms.digest_of("New."),
        created_at=at,
        accept_by=at + timedelta(days=days),
    )
    said = client.get(INFO, headers=mine).headers["X-HF-Warning"]
    assert says in said and "/families/llama/terms/" in said


def test_the_place_in_the_queue_is_told(client, repository, application, stranger, mine, at):
    earlier = applications.begin(stranger, repository.family, at=at)
    applications.save(earlier, answers=ANSWERS, checkpoints=[repository], at=at)
    sent = {"terms": repository.family.terms, "address": None, "agent": ""}
    applications.submit(earlier, at=at - timedelta(days=1), **sent)
    said = client.get(INFO, headers=mine).headers["X-HF-Warning"]
    assert "waits since" in said and "1 before it" in said


def test_a_request_that_was_not_sent_is_told_to_be_so(client, repository, applicant, mine, at):
    draft = applications.begin(applicant, repository.family, at=at)
    applications.save(draft, answers=ANSWERS, checkpoints=[repository], at=at)
    said = client.get(INFO, headers=mine).headers["X-HF-Warning"]
    assert "not sent yet" in said and draft.get_absolute_url() in said


def test_who_withdrew_is_told_how_to_apply(client, repository, application, mine, at):
    applications.withdraw(application, at=at)
    said = client.get(INFO, headers=mine).headers["X-HF-Warning"]
    assert "apply" in said and "/families/llama/" in said


@pytest.mark.parametrize("verb", ["reject", "return_"])
def test_the_reason_of_a_decision_is_told(
    client, application, repository, reviewer, mine, at, verb
):
    getattr(decisions, verb)(application, by=reviewer, reason="Which “data”?\nSay.", at=at)
    said = client.get(INFO, headers=mine).headers["X-HF-Warning"]
    assert 'Which "data"? Say.' in said
    assert ("apply again from" in said) == (verb == "reject")


def test_a_recall_is_told_to_who_has_access(client, repository, grant, mine, second, at):
    notices.recall(repository, reason="Wrong layer.", replacement=second, by="t", at=at)
    said = client.get(f"{INFO}/revision/1", headers=mine).headers["X-HF-Warning"]
    assert "llama/7b@1 was recalled: Wrong layer. Use llama/7b@2 instead." in said


@pytest.mark.parametrize("place", [INFO, f"{INFO}/revision/1", TREE, f"{INFO}/refs"])
def test_what_is_asked_costs_a_fixed_number_of_queries(
    client, repository, grant, mine, place, django_assert_max_num_queries
):
    client.get(place, headers=mine)
    with django_assert_max_num_queries(8):
        client.get(place, headers=mine)
    for number in range(30):
        add_file(repository, f"{number}.bin", b"x")
    with django_assert_max_num_queries(8):
        client.get(place, headers=mine)


def test_a_manifest_that_the_store_has_changed_is_not_listed(client, repository):
    shard = repository.shards.get(path=".weighbridge/checkpoint.json")
    store().delete(shard.store_key)
    store().put_bytes(shard.store_key, b"{}")
    answer = client.get(INFO)
    assert answer.status_code == 503 and answer.headers["Retry-After"]
