import sqlite3

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from portal.audit import chain
from portal.audit.models import Event


@pytest.fixture
def three_events(db, at):
    return [
        chain.record("thing.done", subject=f"thing:{n}", actor="user:1", at=at) for n in range(3)
    ]


def test_each_event_follows_from_the_one_before(three_events):
    assert [event.seq for event in three_events] == [1, 2, 3]
    assert three_events[2].prev == three_events[1].hash
    assert list(chain.breaks()) == []


def test_nothing_is_recorded_outside_a_transaction(committed_db, at):
    with pytest.raises(chain.AuditError, match="outside a transaction"):
        chain.record("thing.done", subject="thing:1", actor="user:1", at=at)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'user:9' WHERE seq = 2",
        "DELETE FROM audit_event WHERE seq = 3",
        "REPLACE INTO audit_event SELECT seq, at, 'user:9', action, subject, detail, prev, hash "
        "FROM audit_event WHERE seq = 2",
        "INSERT INTO audit_event SELECT seq + 5, at, actor, action, subject, detail, hash, hash "
        "FROM audit_event WHERE seq = 3",
        "INSERT INTO audit_event SELECT 4, at, actor, action, subject, detail, prev, hash "
        "FROM audit_event WHERE seq = 2",
    ],
)
def test_the_database_refuses_to_change_delete_overwrite_skip_or_fork(three_events, statement):
    with pytest.raises(DatabaseError, match="append-only|must follow"), transaction.atomic():
        connection.cursor().execute(statement)


def _behind_the_back(statement):
    cursor = connection.cursor()
    for trigger in ("audit_no_update", "audit_no_delete", "audit_link"):
        cursor.execute(f"DROP TRIGGER {trigger}")
    cursor.execute(statement)


@pytest.mark.parametrize(
    ("statement", "seq", "message"),
    [
        ("UPDATE audit_event SET actor = 'user:9' WHERE seq = 2", 2, "edited"),
        ("UPDATE audit_event SET at = '2001-01-01 00:00:00' WHERE seq = 1", 1, "edited"),
        ("DELETE FROM audit_event WHERE seq = 2", 3, "missing"),
    ],
)
def test_a_row_changed_behind_the_applications_back_is_found(three_events, statement, seq, message):
    _behind_the_back(statement)
    found = list(chain.breaks())
    assert found[0].seq == seq
    assert message in found[0].message


def test_a_cut_end_is_found_by_the_head_that_was_noted(three_events, settings, tmp_path):
    settings.AUDIT_HEADS = tmp_path / "heads.jsonl"
    chain.note_head()
    _behind_the_back("DELETE FROM audit_event WHERE seq = 3")
    assert [(b.seq, "gone" in b.message) for b in chain.breaks()] == [(3, True)]


def test_the_command_says_that_the_chain_holds_and_where_it_does_not(
    three_events, settings, tmp_path, capsys
):
    settings.AUDIT_HEADS = tmp_path / "heads.jsonl"
    call_command("audit", "verify")
    assert "The audit chain holds: 3 events" in capsys.readouterr().out
    _behind_the_back("UPDATE audit_event SET detail = '{}x' WHERE seq = 2")
    with pytest.raises(SystemExit) as stopped:
        call_command("audit", "verify")
    assert stopped.value.code == 1
    assert "Event 2" in capsys.readouterr().err


def test_an_event_rolls_back_with_its_change(committed_db, at):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        chain.record("thing.done", subject="thing:1", actor="user:1", at=at)
        raise ZeroDivisionError
    assert Event.objects.count() == 0


def test_two_connections_write_one_chain(committed_db, at):
    with transaction.atomic():
        chain.record("thing.done", subject="thing:1", actor="user:1", at=at)
    other = sqlite3.connect(committed_db)
    assert other.execute("SELECT COUNT(*) FROM audit_event").fetchone() == (1,)
    other.close()
