"""Every hostile or broken copy ends in a finding, or in an error of one sentence.

Within 1 s of CPU time and 200 MB, without a traceback; nothing in it is executed, nothing is
written outside the data folder, nothing hangs.
"""

import re
from pathlib import Path

import pytest

from tests.verifier.test_findings import PROVOKE
from verifier.findings import Code

from .cases import MIB, ROOT, Answer, Case, Worker
from .corpus import CASES

SECONDS = 1.0
MEMORY = 200 * MIB
TRIES = 3
"""Neighbours on a machine make CPU time longer, never shorter: the best of a few tries counts."""


def test_the_corpus_has_at_least_300_cases_each_with_a_name():
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("code", Code)
def test_every_code_is_provoked_by_a_case_or_by_a_test(code: Code):
    assert code in {case.code for case in CASES} | set(PROVOKE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_copy_ends_in_a_finding_or_one_sentence(
    case: Case, worker: Worker, tmp_path: Path
):
    if case.needs_root and not ROOT:
        pytest.skip("only root can make what this case needs")
    for number in range(TRIES):
        with worker.room(tmp_path / str(number)) as room:
            answer = worker.ask(room, case)
        assert answer.died is None, f"{answer.died}\n{answer.err[-2000:]}"
        check_words(answer)
        assert answer.deeds == []
        assert answer.left == []
        assert answer.peak < MEMORY
        if answer.cpu < SECONDS:
            break
    assert answer.cpu < SECONDS
    check_answer(case, answer)


def check_words(answer: Answer) -> None:
    """One printable line on stderr, and no traceback."""
    assert "Traceback" not in answer.err
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.strip().isprintable()


def check_answer(case: Case, answer: Answer) -> None:
    """The status, and what must be said."""
    if case.status == 2:
        assert (answer.status, answer.out) == (2, ""), answer.err
        assert re.search(case.says, answer.err), answer.err
        return
    found = [f for f in answer.report["findings"] if f["code"] == case.code]
    said = [f["message"] for f in answer.report["findings"]]
    assert any(re.search(case.says, f["message"]) for f in found), said[:9]
    assert answer.status == case.status, answer.err
    for message in said:
        assert message.isprintable(), message
