"""The inference check is another process: whatever becomes of it is an answer."""

import sys

import pytest

from verifier.inference_run import InferenceOptions, _ask
from verifier.progress import silent


def ask(script, seconds=20.0, progress=silent):
    return _ask([sys.executable, "-c", script], seconds, InferenceOptions(), progress)


def test_its_answer_is_passed_on():
    answer = ask('print(\'{"status": "agrees", "device": "cpu"}\')')
    assert answer == {"status": "agrees", "device": "cpu", "reason": ""}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os.abort()", "SIGABRT"),
        ("import sys; sys.exit('no config')", "no config"),
        ("raise SystemExit(7)", "status 7"),
        ('print(\'{"status": "fine"}\')', "status 0"),
        ("print('[' * 100000)", "status 0"),
        ("print('{\"status\": NaN}')", "status 0"),
        ("import time; time.sleep(60)", "longer than"),
        ("while True: print('x' * 100000)", "SIGKILL"),
    ],
)
def test_whatever_else_it_does_is_not_run_with_a_reason(script, reason):
    answer = ask(script, seconds=1.5)
    assert answer["status"] == "not-run"
    assert reason in answer["reason"]


def test_its_progress_is_passed_on():
    steps = []
    script = (
        'import sys; print(\'{"stage": "inference", "done": 1, "total": 2}\', file=sys.stderr);'
        "print('noise', file=sys.stderr); print('{\"status\": \"agrees\"}')"
    )
    ask(script, progress=lambda *step: steps.append(step))
    assert steps == [("inference", 1, 2)]
