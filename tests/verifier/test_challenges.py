"""What is refused of a challenge or an answer before anything is computed."""

import base64
import json
import struct
from datetime import UTC, datetime

import pytest

from verifier.challenges import Challenge, read_answer, read_challenge
from verifier.errors import ChallengeError

ID = "4b0c1f0e-7d53-4a55-9a52-0c9f0f0a8a11"
CHALLENGE = Challenge(ID, "llama/tiny@1", "ab" * 32, 4, datetime(2030, 1, 1, tzinfo=UTC))


def floats(count, value=1.0):
    return base64.b64encode(struct.pack(f"<{count}f", *[value] * count)).decode()


def ids(rows=4, columns=8):
    row = struct.pack(f"<{columns}i", *range(columns))
    return base64.b64encode(row * rows).decode()


def answer(**changes):
    """An answer of a model of one layer and eight tokens."""
    content = {
        "schema": "weighbridge.answer/1",
        "challenge": ID,
        "positions": 4,
        "layers": 1,
        "width": 16,
        "vocab": 8,
        "logsumexp": floats(4),
        "ids": ids(),
        "logits": floats(32),
        "sketch": floats(64),
        "activations": floats(10),
        "probes": {"names": ["lm_head.weight"], "signatures": floats(4)},
    }
    return json.dumps(content | changes).encode()


def test_a_challenge_is_read_as_it_was_written():
    assert read_challenge(json.dumps(CHALLENGE.content()).encode()) == CHALLENGE


@pytest.mark.parametrize(
    "change",
    [
        {"id": "1"},
        {"seed": "ab" * 31},
        {"seed": "AB" * 32},
        {"seed": 1},
        {"positions": 3},
        {"positions": 132},
        {"positions": True},
        {"expires": "2030-01-01T00:00:00"},
        {"expires": "soon"},
        {"checkpoint": ""},
    ],
)
def test_a_damaged_challenge_is_refused(change):
    with pytest.raises(ChallengeError, match="get its file from the portal again"):
        read_challenge(json.dumps(CHALLENGE.content() | change).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"schema": "x"}', b"\xff", b" " * 5000])
def test_what_is_no_challenge_is_refused(data):
    with pytest.raises(ChallengeError, match=r"^The challenge"):
        read_challenge(data)


def test_an_answer_is_read():
    assert read_answer(answer(), CHALLENGE).names == ("lm_head.weight",)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"logits": floats(32, float("nan"))}, "logits, which holds NaN or Infinity"),
        ({"sketch": floats(64, float("inf"))}, "sketch, which holds NaN or Infinity"),
        ({"logits": floats(31)}, "logits"),
        ({"logits": "?"}, "logits"),
        ({"logits": 1}, "logits"),
        ({"logsumexp": None}, "logsumexp"),
        ({"ids": base64.b64encode(bytes(128)).decode()}, "ids"),
        ({"vocab": 7}, "ids"),
        ({"vocab": 1 << 40}, "vocab"),
        ({"layers": -1}, "layers"),
        ({"layers": True}, "layers"),
        ({"positions": 10**9}, "positions"),
        ({"width": 2.0}, "width"),
        ({"probes": []}, "probes"),
        ({"probes": {"names": ["a", "a"], "signatures": floats(8)}}, "probes.names"),
        ({"probes": {"names": ["a"], "signatures": floats(8)}}, "signatures"),
        ({"probes": {"names": [[]], "signatures": floats(4)}}, "a field"),
    ],
)
def test_a_malformed_answer_is_refused_with_the_field(change, field):
    with pytest.raises(ChallengeError, match=f"malformed in {field}") as refused:
        read_answer(answer(**change), CHALLENGE)
    assert str(refused.value).endswith("unchanged.")


def test_an_answer_to_another_challenge_is_refused():
    with pytest.raises(ChallengeError, match="answers another challenge"):
        read_answer(answer(challenge="5" + ID[1:]), CHALLENGE)


def test_an_answer_to_fewer_positions_is_refused():
    short = {"positions": 8, "logsumexp": floats(8), "ids": ids(8), "logits": floats(64)}
    short |= {"sketch": floats(128), "activations": floats(20)}
    with pytest.raises(ChallengeError, match="8 positions; 4 were asked"):
        read_answer(answer(**short), CHALLENGE)


def test_an_answer_that_is_too_large_is_not_parsed():
    with pytest.raises(ChallengeError, match="no more than"):
        read_answer(b"[" * (5 << 20), CHALLENGE)


@pytest.mark.parametrize("data", [b"{}", b"null", b"[" * 10**5, b'{"a": NaN}', b'{"a":1,"a":2}'])
def test_what_is_no_answer_is_refused_in_one_sentence(data):
    with pytest.raises(ChallengeError, match=r"^The answer[^\n]*$"):
        read_answer(data, CHALLENGE)


def test_a_report_that_holds_an_answer_is_read():
    report = {"schema": "weighbridge.report/1", "challenge": json.loads(answer())}
    assert read_answer(json.dumps(report).encode(), CHALLENGE).vocab == 8


@pytest.mark.parametrize("challenge", [None, [], {"status": "not-run", "reason": "no torch"}])
def test_a_report_without_an_answer_is_refused(challenge):
    report = {"schema": "weighbridge.report/1", "challenge": challenge}
    with pytest.raises(ChallengeError, match="holds no answer"):
        read_answer(json.dumps(report).encode(), CHALLENGE)
