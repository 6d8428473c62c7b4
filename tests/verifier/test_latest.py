"""latest.json: who may sign it, how long it is valid, and what a verification makes of it."""

import base64
import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from tests.verifier.conftest import publish
from tests.verifier.publisher import START, Publisher, ed25519_key, p256_key
from verifier import latest
from verifier.envelopes import Envelope
from verifier.errors import ManifestError, SignatureError
from verifier.latest import Newest, Recall

NAME = "test/tiny@1"


@pytest.fixture
def publisher(published):
    return Publisher(release=published.signer.key)


@pytest.fixture
def trust(tmp_path, publisher):
    """The folder where root.json was installed beforehand."""
    publisher.write(tmp_path / "trust")
    return tmp_path / "trust"


@pytest.fixture
def newer(published, tmp_path, signer):
    """The same checkpoint, signed again as revision 2."""
    leave = shutil.ignore_patterns(".weighbridge", "*.sig")
    folder = shutil.copytree(published.folder, tmp_path / "newer", ignore=leave)
    return publish(folder, tmp_path / "work", signer, revision=2)


def digest_of(folder):
    payload = json.loads((folder / "model.sig").read_bytes())["dsseEnvelope"]["payload"]
    return hashlib.sha256(base64.b64decode(payload)).hexdigest()


@pytest.mark.parametrize("make", [ed25519_key, p256_key], ids=["ed25519", "p256"])
def test_what_is_said_is_read_back(make):
    publisher = Publisher(latest_key=make())
    recalls = {NAME: Recall("Wrong tokenizer.", None, START)}
    checkpoints = {NAME: Newest(2, "0" * 64)}
    data = publisher.latest(newest={"test/tiny": "3"}, checkpoints=checkpoints, recalls=recalls)
    said = latest.verify(data, publisher.newest)
    assert (said.recalls, said.checkpoints) == (recalls, checkpoints)
    assert said.newer_version(NAME) == "test/tiny@3"
    assert said.newer_version("test/tiny@3") is None
    assert said.newer_version("test/other@1") is None


@pytest.mark.parametrize("role", ["root", "release", "another root's latest"])
def test_only_the_latest_role_signs_it(role):
    publisher = Publisher()
    wrong = {"root": publisher.root[0], "release": publisher.release}.get(role, ed25519_key())
    other = Publisher(latest_key=wrong)
    with pytest.raises(SignatureError, match="not signed by the keys"):
        latest.verify(other.latest(), publisher.newest)


def test_it_belongs_to_one_root():
    publisher = Publisher()
    other = Publisher(latest_key=publisher.latest_key)
    with pytest.raises(SignatureError, match="another root"):
        latest.verify(other.latest(), publisher.newest)


@pytest.mark.parametrize("days", [6, 31, 0, -14])
def test_it_is_valid_for_7_to_30_days(days):
    publisher = Publisher()
    told = {"newest": {}, "checkpoints": {}, "recalls": {}}
    with pytest.raises(ManifestError, match="7 to 30 days"):
        latest.sign(
            publisher.newest,
            [publisher.latest_key],
            issued_at=START,
            expires_at=START + timedelta(days=days),
            **told,
        )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"type": "root"}, "of a form"),
        ({"schema": None}, "of a form"),
        ({"newest": []}, "`newest` is missing or of the wrong type"),
        ({"newest": {"a/b": 1}}, "wrong type"),
        ({"checkpoints": {NAME: {"revision": 0, "statement": "0" * 64}}}, "as it must"),
        ({"checkpoints": {NAME: {"revision": 1, "statement": "x"}}}, "as it must"),
        ({"checkpoints": {NAME: []}}, "wrong type"),
        ({"recalls": {NAME: {"reason": 1}}}, "`reason` is missing or of the wrong type"),
        ({"revoked": {"a": None}}, "wrong type"),
        ({"newest": {f"a/{n}": "1" for n in range(100_001)}}, "more than 100,000"),
    ],
)
def test_a_malformed_one_is_refused_in_a_sentence(changed, reason):
    publisher = Publisher()
    payload = base64.b64decode(json.loads(publisher.latest())["payload"])
    wrong = json.dumps(json.loads(payload) | changed).encode()
    data = Envelope(wrong, latest.PAYLOAD_TYPE, ()).signed_by([publisher.latest_key]).as_bytes()
    with pytest.raises(ManifestError, match=reason):
        latest.verify(data, publisher.newest)


def test_a_root_is_trusted_as_a_key_is(copy, verify, trust):
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    assert outcome.report["manifest"]["stale"] is None
    assert not outcome.codes


def test_the_root_installed_with_the_portal_counts_without_being_named(
    copy, verify, publisher, tmp_path
):
    publisher.write(tmp_path / "data" / "keys")
    assert verify(copy, key=None).report["verdict"] == "identical"


def test_a_fresh_word_of_the_publisher_is_not_stale(copy, verify, publisher, trust):
    checkpoints = {NAME: Newest(1, digest_of(copy))}
    (trust / "latest.json").write_bytes(publisher.latest(checkpoints=checkpoints))
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.report["verdict"], outcome.codes) == ("identical", set())
    assert outcome.report["manifest"]["stale"] is False


def test_an_expired_word_is_stale_and_no_verdict(copy, verify, publisher, trust):
    (trust / "latest.json").write_bytes(publisher.latest(at=START))
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    assert outcome.codes == {"stale"}
    assert outcome.report["manifest"]["stale"] is True
    assert "expired on 16 January 2026" in outcome.report["findings"][0]["message"]


def test_an_expired_root_is_stale_and_no_verdict(copy, verify, published, tmp_path):
    publisher = Publisher(release=published.signer.key, expires_at=START + timedelta(days=1))
    outcome = verify(copy, key=publisher.write(tmp_path / "trust"))
    assert (outcome.status, outcome.report["verdict"], outcome.codes) == (0, "identical", {"stale"})


@pytest.mark.parametrize("content", [b"", b"{}", b"another root's"])
def test_a_word_that_cannot_be_trusted_is_not_used(copy, verify, trust, content):
    if content.startswith(b"another"):
        content = Publisher().latest(checkpoints={NAME: Newest(9, "0" * 64)})
    (trust / "latest.json").write_bytes(content)
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"], outcome.codes) == (0, "identical", {"stale"})


@pytest.mark.parametrize("issued_at", [START, datetime.now(UTC)], ids=["expired", "fresh"])
def test_an_older_revision_than_the_publishers_newest_is_untrusted(
    copy, newer, verify, publisher, trust, issued_at
):
    checkpoints = {NAME: Newest(2, digest_of(newer.folder))}
    (trust / "latest.json").write_bytes(publisher.latest(at=issued_at, checkpoints=checkpoints))
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert outcome.codes == {"rollback"}
    assert "revision 1, but revision 2 is the publisher's newest" in outcome.sentence
    assert verify(newer.folder, key=trust / "root.json").status == 0


def test_another_statement_under_the_newest_revision_is_untrusted(copy, verify, publisher, trust):
    checkpoints = {NAME: Newest(1, "0" * 64)}
    (trust / "latest.json").write_bytes(publisher.latest(checkpoints=checkpoints))
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert "not the revision 1 that its publisher names" in outcome.sentence


def test_a_revision_seen_under_a_root_counts_after_its_keys_changed(
    copy, verify, published, tmp_path, newer, publisher, trust
):
    """What was seen is remembered for the root, not for the key that happened to sign."""
    assert verify(newer.folder, key=trust / "root.json").status == 0
    publisher.rotate_release()
    publisher.write(trust)
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.report["verdict"], outcome.codes) == ("untrusted", {"rollback"})


def test_a_recall_is_said_with_its_reason_and_is_no_verdict(copy, verify, publisher, trust):
    recall = Recall("Its tokenizer was wrong.", "test/tiny@2", datetime.now(UTC))
    (trust / "latest.json").write_bytes(publisher.latest(recalls={NAME: recall}))
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    (finding,) = outcome.report["findings"]
    assert finding["code"] == "recalled"
    assert (
        finding["message"]
        == f"{NAME} was recalled: Its tokenizer was wrong; use test/tiny@2 instead."
    )


def test_an_older_word_than_one_seen_is_stale(copy, verify, publisher, trust):
    now = datetime.now(UTC)
    older = publisher.latest(at=now - timedelta(days=1))
    (trust / "latest.json").write_bytes(publisher.latest(at=now))
    assert not verify(copy, key=trust / "root.json").codes
    (trust / "latest.json").write_bytes(older)
    assert verify(copy, key=trust / "root.json").codes == {"stale"}


def test_an_older_root_than_one_seen_is_untrusted(copy, verify, publisher, trust, tmp_path):
    publisher.rotate_release()
    publisher.write(trust)
    assert verify(copy, key=trust / "root.json").status == 0
    (tmp_path / "old.json").write_bytes(publisher.roots[0])
    outcome = verify(copy, key=tmp_path / "old.json")
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert "version 1, but version 2 was seen here before" in outcome.sentence


def test_an_old_release_key_verifies_until_it_is_revoked(copy, verify, publisher, trust):
    publisher.rotate_release()
    publisher.write(trust)
    assert verify(copy, key=trust / "root.json").status == 0
    publisher.release = publisher.retired.pop()
    publisher.revoke_release("The laptop was stolen.")
    publisher.write(trust)
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.report["verdict"]) == (1, "untrusted")
    assert outcome.codes == {"revoked"}
    assert "The laptop was stolen" in outcome.sentence


def test_a_revoked_key_counts_no_longer_though_it_is_given_too(copy, verify, publisher, trust):
    publisher.revoke_release("Lost.")
    publisher.write(trust)
    outcome = verify(copy, "--trusted-key", trust / "root.json")
    assert outcome.codes == {"revoked"}


def test_a_key_revoked_by_latest_json_counts_no_longer_before_the_root_is_renewed(
    copy, verify, publisher, trust
):
    publisher.revoke_release("Lost.")
    (trust / "latest.json").write_bytes(publisher.latest())
    outcome = verify(copy, key=trust / "root.json")
    assert (outcome.status, outcome.codes) == (1, {"revoked"})


def test_a_root_that_cannot_be_trusted_exits_with_2(copy, verify, publisher, trust):
    publisher.rotate_root()
    publisher.rotate_root()
    publisher.write(trust)
    (trust / "2.root.json").unlink()
    outcome = verify(copy, key=trust / "1.root.json")
    assert (outcome.status, outcome.out) == (2, "")
    assert "2.root.json" in outcome.sentence
