import os
from datetime import timedelta

import pytest

from portal.audit.models import Event
from portal.verification import claims, copies
from portal.verification.models import Verification

LONG = timedelta(hours=1)


@pytest.fixture
def check(applicant, at):
    return Verification.objects.create(
        asked_by=applicant, source="urls", what=["https://x.example/a.bin"], created_at=at
    )


def test_a_check_is_claimed_by_one_worker(check, at):
    assert claims.claim(check.pk, at=at)
    assert claims.claim(check.pk, at=at) is None


def test_a_check_whose_lease_ran_out_is_claimed_again(check, at):
    first = claims.claim(check.pk, at=at)
    second = claims.claim(check.pk, at=at + LONG)
    assert second and second != first


def test_a_worker_that_lost_its_lease_changes_nothing(check, at):
    late = claims.claim(check.pk, at=at)
    owner = claims.claim(check.pk, at=at + LONG)
    assert not claims.beat(check.pk, late, at=at + LONG, progress={"bytes_done": 7})
    assert not claims.finish(check.pk, late, at=at + LONG, status="done", verdict="damaged")
    assert claims.finish(check.pk, owner, at=at + LONG, status="done", verdict="identical")
    check.refresh_from_db()
    assert (check.verdict, check.bytes_done, check.attempt) == ("identical", 0, 2)


def test_a_result_is_written_once_with_one_event(check, at):
    owner = claims.claim(check.pk, at=at)
    assert claims.finish(check.pk, owner, at=at, status="done", verdict="identical")
    assert not claims.finish(check.pk, owner, at=at, status="done", verdict="damaged")
    assert Event.objects.filter(subject=check.subject, action="verification.finished").count() == 1


def test_a_heartbeat_keeps_the_lease(check, at):
    owner = claims.claim(check.pk, at=at)
    claims.beat(check.pk, owner, at=at + claims.lease() / 2, progress={})
    assert claims.claim(check.pk, at=at + claims.lease()) is None


def test_a_check_is_given_up_with_a_reason_when_its_attempts_are_used_up(check, at):
    for attempt in range(Verification.ATTEMPTS):
        assert claims.claim(check.pk, at=at + attempt * LONG)
    after = at + Verification.ATTEMPTS * LONG
    assert claims.claim(check.pk, at=after) is None
    claims.give_up(after)
    check.refresh_from_db()
    assert check.status == "failed" and "8 times" in check.sentence


def test_what_waits_is_woken_once_in_a_while(check, at):
    assert claims.due(at) == [check.pk]
    assert claims.due(at + timedelta(seconds=1)) == []
    assert claims.due(at + LONG) == [check.pk]


def test_what_a_worker_holds_is_not_woken(check, at):
    claims.claim(check.pk, at=at)
    assert claims.due(at) == []
    assert claims.due(at + LONG) == [check.pk]


def test_only_folders_of_no_waiting_check_are_swept(check, settings, tmp_path):
    settings.DATA = tmp_path
    kept = copies.folder_of(check.pk)
    gone = kept.with_name("00000000-0000-0000-0000-000000000000")
    for folder in (kept, gone):
        (folder / "files").mkdir(parents=True)
        os.utime(folder, (0, 0))
    copies.sweep()
    assert kept.is_dir() and not gone.exists()
