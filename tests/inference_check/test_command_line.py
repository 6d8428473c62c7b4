"""The command: its exit statuses, one sentence each, and what it writes."""

import json
import subprocess
import sys

import pytest
import torch

from inference_check import __main__ as command
from inference_check.reference import load_reference
from inference_check.signs import token_ids
from inference_check.synthetic import make_weights, write_hf

from .conftest import SHAPE, run_command


def test_help_does_not_import_torch():
    script = (
        "import sys; from inference_check.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(m.split('.')[0] in ('torch', 'numpy', 'django') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0


def test_a_reference_is_made_from_either_layout_and_serves_the_other(official, tmp_path, check):
    made = tmp_path / "reference.json"
    assert command.main([str(official / "meta"), "--make-reference", str(made)]) == 0
    assert check(official / "hf", reference=made).inference["status"] == "agrees"


def test_a_reference_is_some_tens_of_kilobytes_and_the_same_each_time(official, tmp_path):
    made = tmp_path / "reference.json"
    assert command.main([str(official / "hf"), "--make-reference", str(made)]) == 0
    one, two = (json.loads(p.read_text()) for p in (made, official / "reference.json"))
    assert {k: v for k, v in one.items() if "eps64" not in k} == {
        k: v for k, v in two.items() if "eps64" not in k
    }
    assert made.stat().st_size < 100_000
    assert load_reference(made).eps64 < 2e-5


def test_token_ids_are_public_and_never_change():
    assert (
        token_ids("weighbridge reference 1", 4, 32000)
        == token_ids("weighbridge reference 1", 64, 32000)[:4]
    )
    assert token_ids("weighbridge reference 1", 4, 32000) == [729, 18815, 12475, 8145]


def test_progress_is_json_a_line_and_ends_at_the_whole(official):
    outcome = run_command(
        official / "hf", "--reference", official / "reference.json", "--json", "--progress-json"
    )
    steps = [json.loads(line) for line in outcome.err.splitlines()]
    assert all(step["stage"] == "inference" and step["done"] <= step["total"] for step in steps)
    assert steps[-1]["done"] == steps[-1]["total"] > 0
    assert outcome.inference["status"] == "agrees"
    assert outcome.inference["bytes_read"] == steps[-1]["total"]


@pytest.mark.parametrize(
    "given",
    [
        ["nowhere", "--reference", "x"],
        ["."],
        [".", "--reference", "x", "--positions", "5"],
        [".", "--reference", "x", "--memory", "much"],
        [".", "--reference", "x", "--make-reference", "y"],
        ["a\0b", "--reference", "x"],
    ],
)
def test_wrong_usage_ends_in_status_2(given, capsys):
    try:
        status = command.main(given)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"schema": 1, "schema": 1}',
        b"\xff",
    ],
)
def test_a_reference_that_cannot_be_understood_is_not_run(official, tmp_path, check, content):
    (tmp_path / "r.json").write_bytes(content)
    outcome = check(official / "hf", reference=tmp_path / "r.json")
    assert (outcome.status, outcome.inference["status"]) == (3, "not-run")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 3},
        {"probes": {}},
        {"probes": {"names": ["a"], "signatures": "AAAA"}},
        {"tokens": []},
        {"tokens": [10**6] * 64},
        {"tokens": [-1] * 64},
        {"tokens": [0] * 200},
        {"logits": "AAAA"},
        {"logits": "*"},
        {"std": None},
        {"layers": 2**40},
        {"layers": 3},
        {"vocab": 1},
        {"seed": 5},
        {"eps64": -1},
        {"eps64": "much"},
        {"layers_eps64": []},
    ],
)
def test_a_reference_whose_lengths_do_not_fit_is_not_run(official, tmp_path, check, change):
    content = json.loads((official / "reference.json").read_text()) | change
    (tmp_path / "r.json").write_text(json.dumps(content))
    outcome = check(official / "hf", reference=tmp_path / "r.json")
    assert "not one that this version understands" in outcome.inference["reason"]


def test_no_reference_is_made_of_weights_that_are_not_numbers(tmp_path, weights, capsys):
    name = "model.layers.2.mlp.down_proj.weight"
    spoiled = weights[name].clone()
    spoiled[0, 0] = torch.nan
    write_hf(tmp_path, weights | {name: spoiled}, SHAPE)
    assert command.main([str(tmp_path), "--make-reference", str(tmp_path / "r.json")]) == 3
    assert capsys.readouterr().err == (
        "No reference can be made: NaN or infinite values come out of layer 2.\n"
    )
    assert not (tmp_path / "r.json").exists()


def test_no_reference_is_made_without_a_config(tmp_path, weights, capsys):
    write_hf(tmp_path, weights, SHAPE)
    (tmp_path / "config.json").unlink()
    assert command.main([str(tmp_path), "--make-reference", str(tmp_path / "r.json")]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_sentence(official, capsys):
    given = [str(official / "hf"), "--make-reference", "/nowhere/reference.json"]
    assert command.main(given) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_without_json_a_person_reads_a_few_lines(official, tmp_path, capsys):
    reference = str(official / "reference.json")
    assert command.main([str(official / "hf"), "--reference", reference]) == 0
    assert capsys.readouterr().out.startswith("agrees\n")
    write_hf(tmp_path, make_weights(SHAPE, seed=8), SHAPE)
    assert command.main([str(tmp_path), "--reference", reference]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "the embedding" in printed.err


@pytest.mark.parametrize(("kind", "reported"), [("sha256", "sha256"), ("blake3", "blake3")])
def test_leaves_are_hashed_on_the_way_and_written_for_whoever_asked(
    official, tmp_path, check, kind, reported
):
    out = tmp_path / "leaves"
    inference = check(official / "hf", "--digest", kind, "--leaves-out", out).inference
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["kind"] for line in lines} == {inference["leaves"]["kind"]} == {reported}
    assert {line["path"] for line in lines} == inference["leaves"]["roots"].keys()
    for line in lines:
        status = (official / "hf" / line["path"]).stat()
        assert line["identity"][1:3] == [status.st_ino, status.st_size]


def test_without_digests_only_what_is_multiplied_is_read(official, check):
    inference = check(official / "hf", "--digest", "none").inference
    assert (inference["status"], inference["leaves"]) == ("agrees", {})


def test_without_blake3_leaves_are_sha256(official, check, monkeypatch):
    monkeypatch.setattr("verifier.digests.blake3_available", lambda: False)
    for asked in ([], ["--digest", "blake3"]):
        assert check(official / "hf", *asked).inference["leaves"]["kind"] == "sha256"
