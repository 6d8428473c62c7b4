"""Unmodified clients against a real portal: only `HF_ENDPOINT` and `HF_TOKEN` are set.

The first line of each test's docstring is a row of docs/clients.md, written by tests/clients.py.
"""

import filecmp
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ANSWERS
from tests.portal.client.conftest import run
from tests.portal.hub.live import BIG, FILES, HF, HUBS, META, ROOT, install

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("row")]
CODE = re.compile(r"\b[A-Z]{4}-[A-Z]{4}\b")


@pytest.fixture(scope="session", params=HUBS)
def client(request):
    """A version of huggingface_hub, installed where pytest keeps things between runs."""
    return install(request.param, Path(request.config.cache.mkdir("hub-clients")))


def tree(folder: Path) -> dict[str, str]:
    """Digests of all files below ``folder`` by name; what clients keep for themselves is left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }


def in_portal(hub, code: str) -> None:
    """Do what a page of the portal does, in its database."""
    given = f"import django\ndjango.setup()\nfrom django.utils.timezone import now\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", given],
        env=hub.portal.environment | {"DJANGO_SETTINGS_MODULE": "portal.settings"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def snapshot(env, repo: str) -> Path:
    (found,) = (Path(env["HF_HOME"]) / "hub" / f"models--{repo.replace('/', '--')}").glob(
        "snapshots/*"
    )
    return found


@pytest.mark.parametrize("repo", [HF, META, FILES])
def test_a_whole_repository_arrives_byte_for_byte(hub, client, env, repo):
    """`hf download REPO`, in Hugging Face and Meta layout."""
    client.hf("download", repo, env=env)
    assert tree(snapshot(env, repo)) == tree(hub.official[repo])


def test_one_file_goes_into_a_folder(hub, client, env, tmp_path):
    """`hf download REPO FILE --local-dir DIR`."""
    name = "notes/read me.txt"
    client.hf("download", FILES, name, "--local-dir", tmp_path / "copy", env=env)
    assert tree(tmp_path / "copy") == {name: tree(hub.official[FILES])[name]}


def test_a_copy_that_is_complete_is_not_asked_for_again(hub, client, env):
    """`hf download` again: nothing is downloaded."""
    client.hf("download", HF, env=env)
    before = len(hub.asked(" GET /d/"))
    client.hf("download", HF, env=env)
    assert len(hub.asked(" GET /d/")) == before


def test_a_download_that_was_cut_goes_on_in_the_middle(hub, client, env):
    """`hf download` of a connection that was cut: it goes on in the middle."""
    before = len(hub.asked("/large.dat"))
    hub.proxy.cut_after = BIG // 2 + (1 << 20)
    # up to 1.17 the next run goes on, since 1.20 the same one
    client.hf("download", FILES, "large.dat", env=env, ok=client.number > (1, 17))
    client.hf("download", FILES, "large.dat", env=env)
    assert hub.proxy.cut_after is None
    assert filecmp.cmp(snapshot(env, FILES) / "large.dat", hub.official[FILES] / "large.dat", False)
    given = [status for method, place, status, _ in hub.asked("/large.dat") if "/d/" in place]
    assert given[-2:] == ["200", "206"], given[before:]


@pytest.mark.parametrize("client", HUBS[1:], indirect=True)  # the command came with 1.1
def test_the_cache_is_verified(hub, client, env):
    """`hf cache verify`: a whole copy is good, one flipped byte is found."""
    client.hf("download", HF, env=env)
    client.hf("cache", "verify", HF, "--fail-on-missing-files", env=env)
    weights = next(snapshot(env, HF).glob("*.safetensors")).resolve()
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(content)
    client.hf("cache", "verify", HF, env=env, ok=False)


def test_a_snapshot_of_a_version_and_of_a_commit_are_one(hub, client, env):
    """`snapshot_download` of a version, and of its commit."""
    code = """
from huggingface_hub import snapshot_download
place = snapshot_download(sys.argv[1], revision="1")
commit = HfApi().model_info(sys.argv[1]).sha
print(json.dumps([place, snapshot_download(sys.argv[1], revision=commit)]))
"""
    version, commit = client.python(code, HF, env=env)
    assert version == commit and tree(Path(version)) == tree(hub.official[HF])


def test_the_signed_manifest_comes_along_and_verifies(hub, client, env, tmp_path):
    """`hf download`, then `python -m verifier`: identical."""
    client.hf("download", HF, "--local-dir", tmp_path / "copy", env=env)
    shutil.rmtree(tmp_path / "copy" / ".cache")
    key = hub.portal.data / "keys" / "release.pub.pem"
    done = subprocess.run(
        [sys.executable, "-m", "verifier", tmp_path / "copy", "--checks", "files"]
        + ["--trusted-key", key],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("IDENTICAL"), done.stderr


def test_the_token_is_known(hub, client, env):
    """`hf auth login --token`, `hf auth whoami`."""
    token = env.pop("HF_TOKEN")
    client.hf("auth", "login", "--token", token, env=env)
    assert "grantee@uni.example" in client.hf("auth", "whoami", env=env)


APPROVE = """
from portal.accounts import devices
from portal.accounts.people import find_or_make
person = find_or_make("grantee@uni.example", by="tests", at=now())
devices.decide(devices.typed({code!r}, at=now()), user=person, approved=True, at=now())
"""


@pytest.mark.parametrize("client", HUBS[1:], indirect=True)  # it came with 1.20
def test_a_browser_logs_the_terminal_in(hub, client, env):
    """`hf auth login` without a token: approved in a browser."""
    del env["HF_TOKEN"]
    login = subprocess.Popen(
        [client.folder / "hf", "auth", "login"],
        env=env | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with login:
        code = next(filter(None, (CODE.search(line) for line in login.stdout)))[0]
        in_portal(hub, APPROVE.format(code=code))
        login.stdout.read()
    assert login.returncode == 0
    assert "grantee@uni.example" in client.hf("auth", "whoami", env=env)
    client.hf("download", HF, "config.json", env=env)


def test_what_is_there_can_be_looked_up(hub, client, env):
    """`HfApi`: model_info, list_models, list_repo_tree, refs, commits, paths, auth_check."""
    code = """
api, repo = HfApi(), sys.argv[1]
info = api.model_info(repo, files_metadata=True)
api.auth_check(repo)
files = {each.rfilename: each.size for each in info.siblings}
listed = {each.path: each.size for each in api.list_repo_tree(repo, recursive=True)
          if hasattr(each, "blob_id")}
(path,) = api.get_paths_info(repo, ["large.dat"])
print(json.dumps({
    "same": files == listed,
    "gated": info.gated,
    "large": [path.size, path.lfs.sha256],
    "models": [each.id for each in api.list_models(search="files")],
    "refs": [each.name for each in api.list_repo_refs(repo).tags],
    "commits": [each.commit_id for each in api.list_repo_commits(repo)] == [info.sha],
}))
"""
    assert client.python(code, FILES, env=env) == {
        "same": True,
        "gated": "manual",
        "large": [BIG, tree(hub.official[FILES])["large.dat"]],
        "models": [FILES],
        "refs": ["1"],
        "commits": True,
    }


def test_who_may_not_is_told_why(hub, client, tmp_path):
    """A refusal: `GatedRepoError` with the portal's own words."""
    env = hub.environment(tmp_path, "stranger")
    code = """
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import GatedRepoError
try:
    hf_hub_download(sys.argv[1], "config.json")
except GatedRepoError as error:
    print(json.dumps(str(error)))
"""
    assert f"{hub.proxy.url}/families/llama/" in client.python(code, HF, env=env)
    said = client.hf("download", HF, "config.json", env=env, ok=False)
    assert "/families/llama/" in said  # since 1.6 by the warning alone


@pytest.mark.parametrize("client", HUBS[1:], indirect=True)  # since 1.2 such headers are printed
def test_a_recall_reaches_who_has_a_whole_copy(hub, client, env):
    """`hf download` of a whole copy: a recall is printed."""
    client.hf("download", META, "params.json", env=env)
    run(hub.portal, "recall", f"{META}@1", "--reason", "Two layers were exchanged.")
    said = client.hf("download", META, "params.json", env=env)
    assert f"{META}@1 was recalled: Two layers were exchanged." in said


def test_what_is_not_there_is_told_apart(hub, client, env):
    """Missing repository, revision and file: each its own error."""
    code = """
from huggingface_hub import hf_hub_download
said = []
for repo, revision, file in (("a/b", "main", "x"), (sys.argv[1], "9", "x"), (sys.argv[1], "1", "x")):
    try:
        hf_hub_download(repo, file, revision=revision)
    except Exception as error:
        said.append([each.__name__ for each in type(error).__mro__])
print(json.dumps(said))
"""
    repository, revision, file = client.python(code, HF, env=env)
    assert "RepositoryNotFoundError" in repository and "GatedRepoError" not in repository
    assert "RevisionNotFoundError" in revision
    assert "EntryNotFoundError" in file


def test_a_token_that_is_unknown_is_said_to_be(hub, client, env):
    """A token of another site: said to be unknown, not a missing repository."""
    env["HF_TOKEN"] = f"hf_{'x' * 40}"
    said = client.python("HfApi().model_info(sys.argv[1])", HF, env=env, ok=False)
    assert "Invalid credentials in Authorization header" in said
    assert "Repository Not Found" not in said


APPLY = """
from portal.access import applications
from portal.accounts.people import find_or_make
from portal.catalog.models import Checkpoint
ANSWERS = {answers!r}
person = find_or_make({email!r}, by="tests", at=now())
checkpoint = Checkpoint.objects.named({name!r}).get()
request = applications.begin(person, checkpoint.family, at=now())
applications.save(request, answers=ANSWERS, checkpoints=[checkpoint], at=now())
applications.submit(request, terms=checkpoint.family.terms, at=now(), address=None, agent="")
"""


@pytest.fixture
def applied(hub, client):
    """Three people who wait for an answer; their addresses."""
    slug = client.version.replace(".", "-")
    people = [f"{who}-{slug}@uni.example" for who in ("accepted", "rejected", "granted")]
    for email in people[:2]:
        in_portal(hub, APPLY.format(answers=ANSWERS, email=email, name=f"{FILES}@1"))
    run(hub.portal, "token", people[2], "--scope", "read")  # makes the person known
    return people


def test_a_reviewers_script_decides(hub, client, applied, tmp_path):
    """`HfApi`: list, accept, reject, cancel access requests; grant_access."""
    code = """
api, repo, (accepted, rejected, granted) = HfApi(), sys.argv[1], sys.argv[2:]
def names():
    return [sorted({each.username for each in list_(repo)} & set(sys.argv[2:])) for list_ in (
        api.list_pending_access_requests,
        api.list_accepted_access_requests,
        api.list_rejected_access_requests)]
seen = [names()]
api.accept_access_request(repo, accepted)
api.reject_access_request(repo, rejected, rejection_reason="Too vague.")
api.grant_access(repo, granted)
seen.append(names())
api.cancel_access_request(repo, accepted)
seen.append(names())
try:
    api.cancel_access_request(repo, rejected)
except Exception as error:
    seen.append(str(error))
print(json.dumps(seen))
"""
    env = hub.environment(tmp_path, "reviewer")
    accepted, rejected, granted = applied
    first, second, third, refusal = client.python(code, FILES, *applied, env=env)
    assert first == [sorted([accepted, rejected]), [], []]
    assert second == [[], sorted([accepted, granted]), [rejected]]
    assert third == [[], [granted], sorted([accepted, rejected])]
    assert "does not go back into the queue" in refusal
