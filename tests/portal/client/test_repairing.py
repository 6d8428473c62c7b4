"""Repair against a server that lies, breaks off and refuses: no good byte is ever made bad."""

import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.client import drafts
from portal.client.broken import lacking_space
from portal.client.errors import ClientError
from portal.client.repairing import Request, repair
from tests.portal.client.conftest import BIG, DEEP, LEAF, NAME, SIZES, SMALL, lying, site, tree
from tests.verifier.conftest import flip, publish
from verifier.errors import InputError, SignatureError
from verifier.keys import load_trusted
from verifier.progress import silent


@pytest.fixture
def copy(signed, tmp_path):
    return shutil.copytree(signed.folder, tmp_path / "copy")


def mend(copy, signed, liar, **more):
    trusted = load_trusted(signed.signer.public)
    return repair(Request(copy, trusted, site(liar), **more), silent)


def inodes(folder):
    return {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


damage = st.one_of(
    st.tuples(st.just("flip"), st.sampled_from(sorted(SIZES)), st.integers(0, 1 << 24)),
    st.tuples(st.just("cut"), st.sampled_from(sorted(SIZES)), st.integers(0, 1 << 24)),
    st.tuples(st.just("extend"), st.sampled_from(sorted(SIZES)), st.integers(1, 5 << 20)),
    st.tuples(st.just("swap"), st.just(BIG), st.integers(0, 2)),
    st.tuples(st.just("remove"), st.sampled_from(sorted(SIZES)), st.just(0)),
)


def do_damage(copy, kind, name, number):
    path = copy / name
    if not path.exists():
        return
    size = path.stat().st_size
    if kind == "flip" and size:
        flip(path, number % size)
    elif kind == "cut":
        os.truncate(path, number % (size + 1))
    elif kind == "extend":
        os.truncate(path, size + number)
    elif kind == "swap" and size == SIZES[BIG]:
        data = bytearray(path.read_bytes())
        one, two = number * LEAF, (number + 1) % 3 * LEAF
        data[one : one + LEAF], data[two : two + LEAF] = (
            data[two : two + LEAF],
            data[one : one + LEAF],
        )
        path.write_bytes(data)
    elif kind == "remove":
        path.unlink()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(damages=st.lists(damage, min_size=1, max_size=5), ranges=st.booleans())
def test_after_any_damage_the_copy_is_byte_for_byte_what_was_signed(signed, liar, damages, ranges):
    liar.ranges = ranges
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(signed.folder, Path(folder) / "copy")
        for kind, name, number in damages:
            do_damage(copy, kind, name, number)
        outcome = mend(copy, signed, liar)
        assert outcome.reasons == []
        assert tree(copy) == tree(signed.folder)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(damages=st.lists(damage, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_garbage_from_the_portal_changes_no_byte(signed, liar, damages, seed):
    dice = random.Random(seed)
    liar.spoil = lambda path, start, body: dice.randbytes(len(body))
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(signed.folder, Path(folder) / "copy")
        for kind, name, number in damages:
            do_damage(copy, kind, name, number)
        before = tree(copy)
        mend(copy, signed, liar)
        official = tree(signed.folder)
        after = {name: data for name, data in tree(copy).items() if ".repair-" not in name}
        for name, data in after.items():
            assert data in (before.get(name), official[name])


def test_a_wrong_leaf_is_asked_for_once_more_and_then_given_up(signed, copy, liar):
    flip(copy / BIG, LEAF)
    flip(copy / SMALL, 0)
    liar.spoil = lambda path, start, body: bytes(len(body)) if path == BIG else body
    outcome = mend(copy, signed, liar)
    assert [path for path, *_ in liar.asked].count(BIG) == 2
    assert outcome.mended == [SMALL], "the other files are mended all the same"
    (reason,) = outcome.reasons
    assert f"other bytes of {BIG} in [4,194,304, 8,388,608)" in reason
    assert (copy / BIG).read_bytes() != (signed.folder / BIG).read_bytes()


def test_a_leaf_that_came_wrong_once_is_right_the_second_time(signed, copy, liar):
    (copy / BIG).unlink()
    count = itertools.count()
    liar.spoil = lambda path, start, body: b"?" + body[1:] if next(count) == 0 else body
    assert mend(copy, signed, liar).reasons == []
    assert tree(copy) == tree(signed.folder)


def test_progress_counts_what_is_fetched_and_what_was(signed, copy, liar):
    (copy / BIG).unlink()
    count = itertools.count()
    liar.spoil = lambda path, start, body: 403 if next(count) else body[: LEAF + 99]
    mend(copy, signed, liar)
    liar.spoil, told = None, []
    trusted = load_trusted(signed.signer.public)
    repair(Request(copy, trusted, site(liar)), lambda *step: told.append(step))
    steps = [done for stage, done, total in told if stage == "repair" and total == SIZES[BIG]]
    assert (steps[0], steps[-1]) == (LEAF, SIZES[BIG])


def test_leaves_that_follow_each_other_cost_one_request_and_others_one_each(signed, copy, liar):
    for leaf in (0, 1, 3):
        flip(copy / BIG, leaf * LEAF)
    mend(copy, signed, liar)
    assert liar.asked == [(BIG, 0, 2 * LEAF), (BIG, 3 * LEAF, SIZES[BIG])]


def test_an_answer_that_breaks_off_goes_on_where_it_ended(signed, copy, liar):
    (copy / BIG).unlink()
    count = itertools.count()
    liar.spoil = lambda path, start, body: body if next(count) else body[: 2 * LEAF + 99]
    assert mend(copy, signed, liar).reasons == []
    assert [start for _, start, _ in liar.asked] == [0, 2 * LEAF]
    assert tree(copy) == tree(signed.folder)


def test_what_was_fetched_before_a_failure_is_not_fetched_again(signed, copy, liar):
    (copy / BIG).unlink()
    count = itertools.count()
    liar.spoil = lambda path, start, body: 500 if next(count) else body[: 2 * LEAF + 99]
    outcome = mend(copy, signed, liar)
    assert "500" in outcome.sentence or "revoked" in outcome.sentence
    assert not (copy / BIG).exists()
    liar.spoil = None
    liar.asked.clear()
    assert mend(copy, signed, liar).fetched_leaves == 2
    assert liar.asked == [(BIG, 2 * LEAF, SIZES[BIG])]
    assert tree(copy) == tree(signed.folder)


def test_what_was_fetched_before_a_kill_is_not_fetched_again(signed, copy, liar, tmp_path):
    (copy / BIG).unlink()

    def slowly(path, start, body):
        time.sleep(0.2)
        return body[:LEAF]

    liar.spoil = slowly
    command = [sys.executable, "-m", "portal.client", "repair", str(copy), "--portal", liar.url]
    command += ["--trusted-key", str(signed.signer.public)]
    environment = os.environ | {
        "WEIGHBRIDGE_TOKEN": "hf_test",
        "WEIGHBRIDGE_DATA": str(tmp_path / "data"),
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while len(liar.asked) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = [start // LEAF for _, start, _ in liar.asked][-1]
    assert kept == 2, "two leaves had come and were written when the third was asked for"
    liar.spoil = None
    liar.asked.clear()
    mend(copy, signed, liar)
    assert liar.asked == [(BIG, 2 * LEAF, SIZES[BIG])]
    assert tree(copy) == tree(signed.folder)


def test_a_url_that_ended_is_asked_for_again(signed, copy, liar):
    (copy / BIG).unlink()
    flip(copy / DEEP, 0)

    def first_ones_end(path, start, body):
        return 403 if liar.issued == 1 and len(liar.asked) > 1 else body

    liar.spoil = first_ones_end
    assert mend(copy, signed, liar).reasons == []
    assert liar.issued == 2
    assert tree(copy) == tree(signed.folder)


def test_a_refusal_that_new_urls_do_not_change_is_told_with_its_reason(signed, copy, liar):
    flip(copy / BIG, 0)
    liar.spoil = lambda path, start, body: 403
    outcome = mend(copy, signed, liar)
    assert outcome.reasons == ["The grant was revoked: Over."]
    assert liar.issued == 2


def test_the_token_is_not_shown_to_who_hands_over_files(signed, copy, liar):
    flip(copy / BIG, 0)
    with lying(signed.folder) as elsewhere:
        liar.official, kept = signed.folder, liar.url
        liar.url = elsewhere.url  # the URLs that it signs lead to another port
        trusted = load_trusted(signed.signer.public)
        asked = site(liar)
        asked = type(asked)(kept, token="hf_test", sleep=lambda seconds: None)
        assert repair(Request(copy, trusted, asked), silent).reasons == []
    assert liar.tokens_seen == [("/api/v1/downloads", "Bearer hf_test")]
    assert [token for _, token in elsewhere.tokens_seen] == [None]


@pytest.mark.parametrize("what", ["link", "dangling", "folder", "pipe", "parent"])
def test_what_is_no_file_is_refused_and_never_followed(signed, copy, liar, tmp_path, what):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "deep.dat").write_bytes(b"not yours")
    target = copy / DEEP
    target.unlink()
    if what == "link":
        target.symlink_to(outside / "deep.dat")
    elif what == "dangling":
        target.symlink_to(outside / "new.dat")
    elif what == "folder":
        target.mkdir()
    elif what == "pipe":
        os.mkfifo(target)
    else:
        target.parent.rmdir()
        target.parent.symlink_to(outside)
    flip(copy / SMALL, 0)
    outcome = mend(copy, signed, liar)
    assert outcome.mended == [SMALL]
    (reason,) = outcome.reasons
    assert "sub" in reason
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {
        "deep.dat": b"not yours"
    }


def test_a_good_file_behind_a_link_inside_the_copy_is_left_alone(signed, copy, liar):
    (copy / SMALL).rename(copy / "blob")
    (copy / SMALL).symlink_to("blob")
    outcome = mend(copy, signed, liar)
    assert (outcome.mended, outcome.reasons) == ([], [])
    flip(copy / "blob", 0)
    outcome = mend(copy, signed, liar)
    assert outcome.mended == [] and "is a link" in outcome.reasons[0]


@pytest.mark.parametrize("planted", ["link", "hard link", "folder"])
def test_a_planted_draft_is_not_written_to(signed, copy, liar, tmp_path, planted):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    entry = mending_entry(signed, SMALL)
    draft = copy / drafts.draft_name(SMALL, entry.sha256)
    if planted == "link":
        draft.symlink_to(victim)
    elif planted == "hard link":
        draft.hardlink_to(victim)
    else:
        draft.mkdir()
    flip(copy / SMALL, 0)
    outcome = mend(copy, signed, liar)
    assert victim.read_bytes() == b"precious"
    assert bool(outcome.reasons) == (planted == "folder")


def mending_entry(signed, name):
    from verifier import manifest

    trust = load_trusted(signed.signer.public)
    return manifest.load(signed.folder / "model.sig", trust).files[name]


def test_a_hard_linked_twin_keeps_its_own_bytes(signed, copy, liar, tmp_path):
    flip(copy / SMALL, 0)
    twin = tmp_path / "twin"
    twin.hardlink_to(copy / SMALL)
    spoiled = twin.read_bytes()
    mend(copy, signed, liar)
    assert twin.read_bytes() == spoiled


def test_good_files_are_not_touched_and_modes_are_kept(signed, copy, liar):
    flip(copy / SMALL, 0)
    (copy / SMALL).chmod(0o640)
    before = inodes(copy)
    mend(copy, signed, liar)
    after = inodes(copy)
    assert {path for path in before if before[path] != after[path]} == {copy / SMALL}
    assert (copy / SMALL).stat().st_mode & 0o777 == 0o640


def test_a_file_that_changes_meanwhile_is_not_replaced(signed, copy, liar):
    flip(copy / SMALL, 0)

    def write_to_it(path, start, body):
        (copy / SMALL).write_bytes(b"somebody's work")
        return body

    liar.spoil = write_to_it
    outcome = mend(copy, signed, liar)
    assert "changed while it was mended" in outcome.reasons[0]
    assert (copy / SMALL).read_bytes() == b"somebody's work"


def test_two_repairs_do_not_work_on_one_file(signed, copy, liar):
    flip(copy / SMALL, 0)
    entry = mending_entry(signed, SMALL)
    place = copy / drafts.draft_name(SMALL, entry.sha256)
    with drafts.entered(copy, SMALL) as folder, drafts.Draft.opened(folder, place):
        outcome = mend(copy, signed, liar)
    assert "Another repair is at work" in outcome.reasons[0]


def test_a_disk_that_is_too_full_is_said_before_anything_is_fetched(
    signed, copy, liar, monkeypatch
):
    (copy / BIG).unlink()
    full = os.statvfs_result((4096, 4096, 100, 5, 5, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    outcome = mend(copy, signed, liar)
    assert "20,480 bytes free and 12,584,146 are needed" in outcome.reasons[0]
    assert liar.asked == []


def test_a_file_system_that_shares_blocks_is_used(signed, copy, liar, monkeypatch):
    """The disk of a test seldom can; here a clone is made by copying, as FICLONE would show it."""

    def clone(target, source):
        os.ftruncate(target, 0)
        os.pwrite(target, os.pread(source, 1 << 30, 0), 0)
        return True

    monkeypatch.setattr(drafts, "_clone", clone)
    flip(copy / BIG, LEAF)
    os.truncate(copy / BIG, 2 * LEAF + 5)
    assert mend(copy, signed, liar).fetched_leaves == 3
    assert tree(copy) == tree(signed.folder)


def test_room_is_needed_for_one_draft_at_a_time(signed, copy, liar, monkeypatch):
    for name in (BIG, DEEP):
        flip(copy / name, 0)
    monkeypatch.setattr(drafts, "shares_blocks", lambda folder: False)
    room = SIZES[BIG] + 4096
    status = os.statvfs_result((1, 1, room, room, room, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: status)
    assert mend(copy, signed, liar).reasons == []
    assert lacking_space(copy, []) is None


def test_a_manifest_of_another_signer_is_not_trusted(signed, copy, liar, tmp_path):
    from tests.verifier.conftest import make_signer

    other = make_signer(tmp_path / "other")
    trusted = load_trusted(other.public)
    with pytest.raises((SignatureError, InputError)):
        repair(Request(copy, trusted, site(liar)), silent)


def test_a_portal_that_sends_more_or_less_than_was_signed_is_found_out(signed, copy, liar):
    flip(copy / BIG, 0)
    longer = shutil.copytree(signed.folder, copy.parent / "longer")
    (longer / BIG).write_bytes((longer / BIG).read_bytes() + b"x")
    liar.official = longer
    outcome = mend(copy, signed, liar)
    assert "instead of 12,584,146" in outcome.reasons[0]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def signed_again(signed, folder, name, revision):
    official = shutil.copytree(signed.folder, folder / "again")
    (official / "model.sig").unlink()
    shutil.rmtree(official / ".weighbridge")
    return publish(official, folder / "work", signed.signer, name=name, revision=revision).folder


def test_a_newer_revision_is_put_into_a_copy_whose_manifest_is_spoiled(
    signed, copy, liar, tmp_path, cache
):
    liar.listed = signed_again(signed, tmp_path, NAME, 2)
    (copy / ".weighbridge" / "leaves.b3").unlink()
    outcome = mend(copy, signed, liar)
    assert outcome.reasons == [] and "model.sig" in outcome.mended
    assert tree(copy) == tree(liar.listed)


def test_the_manifest_of_another_checkpoint_is_not_taken_for_this_one(
    signed, copy, liar, tmp_path, cache
):
    liar.listed = signed_again(signed, tmp_path, "llama/13b@1", 1)
    (copy / "model.sig").unlink()
    with pytest.raises(SignatureError, match="sent the manifest of llama/13b@1 as llama/7b@1"):
        mend(copy, signed, liar, checkpoint=NAME)


def test_an_older_revision_than_the_copys_is_refused(signed, tmp_path, liar, cache):
    copy = signed_again(signed, tmp_path, NAME, 2)
    (copy / ".weighbridge" / "leaves.bin").write_bytes(b"")
    liar.listed = signed.folder
    with pytest.raises(SignatureError, match="older revision"):
        mend(copy, signed, liar)


def test_an_older_revision_than_was_seen_here_is_refused(signed, copy, liar, tmp_path):
    newer = signed_again(signed, tmp_path, NAME, 3)
    mend(newer, signed, liar, data=tmp_path / "data")
    with pytest.raises(SignatureError, match="revision 3 was seen here before"):
        mend(copy, signed, liar, data=tmp_path / "data")


def test_a_manifest_file_that_is_not_the_one_listed_is_not_used(signed, copy, liar, cache):
    liar.listed = signed.folder
    (copy / "model.sig").unlink()
    right = liar.catalogue()
    liar.catalogue = lambda: right.replace(b'"sha256": "', b'"sha256": "0', 1)
    with pytest.raises(ClientError, match="form unknown here"):
        mend(copy, signed, liar, checkpoint=NAME)
    digest = hashlib.sha256((signed.folder / "model.sig").read_bytes()).hexdigest().encode()
    liar.catalogue = lambda: right.replace(digest, b"0" * 64)
    with pytest.raises(ClientError, match="sent another model.sig than it lists"):
        mend(copy, signed, liar, checkpoint=NAME)


def test_without_a_manifest_or_a_name_nothing_is_guessed(signed, copy, liar):
    (copy / "model.sig").unlink()
    with pytest.raises(InputError, match="--checkpoint NAME"):
        mend(copy, signed, liar)


def test_the_links_of_a_hugging_face_cache_are_not_followed_to_write(signed, copy, liar, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    shutil.copytree(copy, snapshot)
    (snapshot / SMALL).rename(blobs / "small")
    (snapshot / SMALL).symlink_to(Path("../../blobs/small"))
    flip(blobs / "small", 0)
    spoiled = (blobs / "small").read_bytes()
    outcome = mend(snapshot, signed, liar)
    assert len(outcome.reasons) == 1 and "link" in outcome.reasons[0]
    assert (blobs / "small").read_bytes() == spoiled
    assert (snapshot / SMALL).is_symlink()
