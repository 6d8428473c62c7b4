"""Digests and inference from one pass: the weight files are read once, and findings stay the same."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.verifier.conftest import flip
from tests.verifier.test_ladder import (  # noqa: F401 (fixtures)
    FIRST,
    check,
    copy,
    official,
)
from verifier.inference_run import with_rung
from verifier.one_pass import understand

SMALL_READS = 64 << 10


def sizes(folder):
    return {
        str(p.relative_to(folder)): p.stat().st_size
        for p in folder.rglob("*")
        if p.is_file() and p.name != "model.sig" and ".weighbridge" not in p.parts
    }


@pytest.mark.parametrize("digest", ["blake3", "sha256"])
def test_each_byte_is_read_once_when_inference_is_asked_for(copy, check, digest):  # noqa: F811
    report = check(copy, "--positions", "8", "--digest", digest).report
    assert (report["verdict"], report["inference"]["status"]) == ("identical", "agrees")
    size = sum(sizes(copy).values())
    assert size <= report["bytes_read"] <= size + SMALL_READS
    plan = report["inference"]["plan"]
    assert report["bytes_read"] - size == plan["bytes_read_twice"]


def test_what_differs_is_found_in_the_leaves_of_the_pass(copy, check):  # noqa: F811
    offset = (copy / FIRST).stat().st_size - 99  # a high byte: a quarter of the entry
    flip(copy / FIRST, offset)
    report = check(copy, "--positions", "8", "--checks", "files,inference").report
    assert report["bytes_read"] <= sum(sizes(copy).values()) + SMALL_READS
    (damaged,) = (f for f in report["findings"] if f["code"] == "damaged")
    assert damaged["path"] == FIRST
    assert any(start <= offset < end for start, end in damaged["ranges"])
    assert report["inference"]["first_tensor"]


def test_a_longer_file_is_hashed_by_itself_and_differs_only_behind_its_end(copy, check):  # noqa: F811
    size = (copy / FIRST).stat().st_size
    with (copy / FIRST).open("ab") as file:
        file.write(b"more")
    report = check(copy, "--positions", "8", "--checks", "files,inference").report
    (damaged,) = (f for f in report["findings"] if f["code"] == "damaged")
    assert damaged["ranges"] == [[size, size + 4]]
    assert report["inference"]["status"] == "not-run"


def test_a_copy_that_cannot_be_run_is_hashed_as_always(official, copy, check):  # noqa: F811
    (copy / "config.json").write_text('{"model_type": "falcon"}')
    report = check(copy).report
    assert "unsupported architecture" in report["inference"]["reason"]
    statuses = {file["path"]: file["status"] for file in report["files"]}
    assert statuses[FIRST] == "good" and statuses["config.json"] == "damaged"


def test_weights_that_are_not_numbers_are_hashed_in_the_same_pass(copy, check):  # noqa: F811
    tensors = load_file(copy / FIRST)
    name = next(name for name in tensors if "layers.1" in name and tensors[name].ndim == 2)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, copy / FIRST, {"format": "pt"})
    report = check(copy, "--positions", "8", "--checks", "files,inference").report
    assert report["inference"]["status"] == "disagrees"
    assert "layer 1" in report["inference"]["reason"]
    assert {f["path"] for f in report["findings"] if f["code"] == "damaged"} == {FIRST}
    assert report["bytes_read"] <= sum(sizes(copy).values()) + SMALL_READS


def test_whole_digests_are_read_by_themselves(copy, check):  # noqa: F811
    report = check(copy, "--positions", "8", "--whole").report
    assert (report["verdict"], report["inference"]["status"]) == ("identical", "agrees")
    assert report["bytes_read"] > 2 * sum(sizes(copy).values())


def test_a_file_that_was_changed_after_the_pass_is_hashed_again(official, copy, monkeypatch):  # noqa: F811
    from verifier import inference_run
    from verifier.findings import FileStatus

    run = inference_run.run_hashing

    def then_change(*given):
        result = run(*given)
        flip(copy / FIRST, (copy / FIRST).stat().st_size - 10)
        return result

    monkeypatch.setattr(inference_run, "run_hashing", then_change)
    report = verify_here(copy, official.parent / "key")
    assert {r.path: r.status for r in report.files}[FIRST] is not FileStatus.GOOD


def verify_here(folder, key):
    from verifier.keys import load_all
    from verifier.progress import silent
    from verifier.verify import Options, verify

    return verify(folder, Options(trust=load_all([key])), silent)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'{"path": "a"}',
        b'{"path": "a", "kind": "sha256", "identity": [1, 2, 3], "leaves": ""}',
        b'{"path": "a", "kind": "sha256", "identity": [1, 2, 9, 4, 5], "leaves": ""}',
        b'{"path": "a", "kind": "sha256", "identity": [1, 2, 9, 4, 5], "leaves": "*"}',
        b'{"path": 5, "kind": "sha256", "identity": [1, 2, 0, 4, 5], "leaves": ""}',
        b'{"path": "a", "kind": "sha256", "identity": [1, 2, "9", 4, 5], "leaves": ""}',
    ],
)
def test_a_line_that_makes_no_sense_tells_of_no_file(line):
    assert understand(line) == {}


@pytest.mark.parametrize(
    ("answer", "rung", "status"),
    [
        ({}, "cast:bf16-rne", "close"),
        ({}, "quantized:Q4_0", "close"),
        ({}, None, "disagrees"),
        ({}, "anything", "disagrees"),
        ({}, "cast:fp16-rne", "disagrees"),
        ({"status": "agrees"}, "cast:bf16-rne", "agrees"),
        ({"status": "not-run", "statistics": {}}, "cast:bf16-rne", "not-run"),
        ({"statistics": None}, "cast:bf16-rne", "disagrees"),
        (
            {"statistics": {"logits": None, "sketch": 0.0, "logsumexp": 0.0}},
            "cast:bf16-rne",
            "disagrees",
        ),
    ],
)
def test_a_rung_that_is_found_later_makes_an_answer_close(answer, rung, status):
    given = {
        "status": "disagrees",
        "reason": "",
        "eps64": 1e-6,
        "statistics": {"logits": 0.02, "sketch": 0.01, "logsumexp": 0.01},
    }
    assert with_rung(given | answer, rung)["status"] == status
