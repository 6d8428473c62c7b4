"""Challenges: answered by true copies, by changed ones, and by forgers."""

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta

import pytest
import torch

from inference_check import __main__ as command
from inference_check.synthetic import write_hf

from .conftest import SHAPE, Outcome, edit_json, run_command


def draw(path, **changes):
    """Write a new challenge to a file, as the portal does."""
    content = {
        "schema": "weighbridge.challenge/1",
        "id": "4b0c1f0e-7d53-4a55-9a52-0c9f0f0a8a11",
        "checkpoint": "llama/tiny@1",
        "seed": secrets.token_hex(32),
        "positions": 32,
        "expires": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    } | changes
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def challenge(tmp_path):
    return draw(tmp_path / "challenge.json")


@pytest.fixture
def answer(capfd, tmp_path):
    """Answer a challenge with a copy; a function that returns the file of the answer."""

    def run(path, challenge):
        capfd.readouterr()
        status = command.main([str(path), "--challenge", str(challenge), "--device", "cpu"])
        said = capfd.readouterr()
        assert status == 0, said.err
        file = tmp_path / f"answer-{secrets.token_hex(4)}.json"
        file.write_text(said.out)
        return file

    return run


@pytest.fixture
def judge(official, capfd, tmp_path):
    """Judge the file of an answer by the official weights."""

    def run(file, challenge):
        made = tmp_path / f"official-{secrets.token_hex(4)}.json"
        asked = ["--make-reference", str(made), "--challenge", str(challenge)]
        asked += ["--errors-from", str(official / "reference.json")]
        assert command.main([str(official / "hf"), *asked]) == 0
        capfd.readouterr()
        given = [str(file), "--judge", "--challenge", str(challenge), "--reference", str(made)]
        status = command.main([*given, "--json"])
        return Outcome(status, *capfd.readouterr())

    return run


@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_a_copy_in_either_layout_answers_right(official, challenge, answer, judge, layout):
    outcome = judge(answer(official / layout, challenge), challenge)
    assert (outcome.status, outcome.inference["status"]) == (0, "agrees")
    assert outcome.inference["positions"] == 32
    statistics, thresholds = outcome.inference["statistics"], outcome.inference["thresholds"]
    assert all(statistics[name] <= limit for name, limit in thresholds.items())
    assert statistics["top1"] == 1.0


def test_a_layer_in_four_bits_is_named(tmp_path, weights, challenge, answer, judge):
    rounded = dict(weights)
    for name, tensor in weights.items():
        if "layers.2." in name and tensor.ndim == 2:
            step = tensor.float().abs().amax(1, keepdim=True) / 7
            rounded[name] = ((tensor / step).round() * step).half()
    write_hf(tmp_path, rounded, SHAPE, 2)
    outcome = judge(answer(tmp_path, challenge), challenge)
    assert (outcome.status, outcome.inference["status"]) == (1, "disagrees")
    assert outcome.inference["first_layer"] == "layer 2"
    assert outcome.inference["first_tensor"] == "layer 2's q_proj"


def test_a_copy_whose_config_differs_disagrees(official, tmp_path, challenge, answer, judge):
    import shutil

    copy = shutil.copytree(official / "hf", tmp_path / "copy")
    edit_json(copy / "config.json", rope_theta=10100.0)
    outcome = judge(answer(copy, challenge), challenge)
    assert "its config differs" in outcome.inference["reason"]


def test_a_smaller_model_disagrees_by_its_size(tmp_path, challenge, answer, judge):
    from inference_check.synthetic import Shape, make_checkpoint

    other = Shape(layers=2, width=64, heads=4, kv_heads=2, hidden=176, vocab=384)
    make_checkpoint(tmp_path / "small", "hf", shape=other)
    outcome = judge(answer(tmp_path / "small", challenge), challenge)
    assert "it has 2 layers, and the published model has 4" in outcome.inference["reason"]


def rewritten(file, **changes):
    """Change fields of an answer."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(content))
    return file


def test_an_answer_to_other_token_ids_disagrees(official, tmp_path, challenge, answer, judge):
    other = draw(tmp_path / "other.json")
    outcome = judge(answer(official / "hf", other), challenge)
    assert outcome.inference["status"] == "disagrees"
    assert outcome.inference["statistics"]["logits"] > 1e-2


def test_the_published_answers_sent_back_disagree(official, challenge, answer, judge):
    published = json.loads((official / "reference.json").read_text())

    def of_32(name, columns):
        return base64.b64encode(base64.b64decode(published[name])[: 4 * 32 * columns]).decode()

    forged = {name: of_32(name, n) for name, n in (("ids", 64), ("logits", 64), ("sketch", 16))}
    forged["logsumexp"] = of_32("logsumexp", 1)
    outcome = judge(rewritten(answer(official / "hf", challenge), **forged), challenge)
    assert outcome.inference["status"] == "disagrees"


def test_right_answers_with_the_published_signatures_disagree(official, challenge, answer, judge):
    published = json.loads((official / "reference.json").read_text())["probes"]
    rows = torch.frombuffer(bytearray(base64.b64decode(published["signatures"])), dtype=torch.float)
    signed = base64.b64encode(rows.view(-1, 5)[:, :4].contiguous().numpy().tobytes()).decode()
    forged = {"names": published["names"], "signatures": signed}
    outcome = judge(rewritten(answer(official / "hf", challenge), probes=forged), challenge)
    assert (outcome.status, outcome.inference["first_layer"]) == (1, None)
    assert outcome.inference["statistics"]["signatures"] > 1e-2


def test_an_answer_that_leaves_a_signature_out_disagrees(official, challenge, answer, judge):
    file = answer(official / "hf", challenge)
    probes = json.loads(file.read_text())["probes"]
    signed = base64.b64encode(base64.b64decode(probes["signatures"])[16:]).decode()
    left = {"names": probes["names"][1:], "signatures": signed}
    assert judge(rewritten(file, probes=left), challenge).inference["status"] == "disagrees"


def test_other_ids_than_the_likeliest_disagree(official, challenge, answer, judge):
    """Every number in it is right; only the ids that would have told are not listed."""
    file = answer(official / "hf", challenge)
    content = json.loads(file.read_text())
    ids = torch.frombuffer(bytearray(base64.b64decode(content["ids"])), dtype=torch.int32)
    ids = ids.view(32, 64).clone()
    for row in ids:
        row[0] = next(n for n in range(SHAPE.vocab) if n not in set(row.tolist()))
    forged = base64.b64encode(ids.numpy().tobytes()).decode()
    assert judge(rewritten(file, ids=forged), challenge).inference["status"] == "disagrees"


def test_an_expired_challenge_is_not_answered(official, tmp_path, capfd):
    late = draw(tmp_path / "late.json", expires="2020-01-01T00:00:00+00:00")
    assert command.main([str(official / "hf"), "--challenge", str(late)]) == 2
    assert "has expired" in capfd.readouterr().err


def test_a_copy_with_nan_gives_no_answer_and_names_the_layer(tmp_path, weights, challenge, capfd):
    name = "model.layers.1.mlp.up_proj.weight"
    spoiled = weights | {name: torch.full_like(weights[name], torch.nan)}
    write_hf(tmp_path, spoiled, SHAPE, 2)
    assert command.main([str(tmp_path), "--challenge", str(challenge)]) == 1
    said = capfd.readouterr()
    assert "layer 1" in said.err and said.out == "" and said.err.count("\n") == 1


def test_the_command_prints_the_answer_and_nothing_else(official, challenge):
    outcome = run_command(official / "hf", "--challenge", challenge, "--device", "cpu")
    assert (outcome.status, outcome.err) == (0, "")
    content = json.loads(outcome.out)
    assert content["schema"] == "weighbridge.answer/1"
    assert "seed" not in content


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--judge", "--reference", "r"],
        ["--judge", "--challenge", "c"],
        ["--challenge", "c", "--reference", "r"],
    ],
)
def test_options_that_do_not_go_together_are_usage(official, options, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([str(official / "hf"), *options])
    assert "--challenge" in capsys.readouterr().err


def test_verify_brings_the_answer_in_its_report(official, tmp_path, challenge, judge):
    import subprocess
    import sys

    name = "model-00001-of-00002.safetensors"
    listed = tmp_path / "SHA256SUMS"
    import hashlib

    digest = hashlib.sha256((official / "hf" / name).read_bytes()).hexdigest()
    listed.write_text(f"{digest}  {name}\n")
    command = [sys.executable, "-m", "verifier", str(official / "hf"), "--manifest", str(listed)]
    command += ["--challenge", str(challenge), "--device", "cpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "report.json"
    file.write_text(done.stdout)
    assert judge(file, challenge).inference["status"] == "agrees"


def test_a_damaged_store_judges_nobody(official, tmp_path, weights, challenge, capfd):
    name = "model.layers.1.mlp.up_proj.weight"
    write_hf(tmp_path, weights | {name: weights[name] * 1.01}, SHAPE, 2)
    asked = ["--make-reference", str(tmp_path / "made.json"), "--challenge", str(challenge)]
    asked += ["--errors-from", str(official / "reference.json")]
    assert command.main([str(tmp_path), *asked]) == 3
    assert f"{name} is not as it was published" in capfd.readouterr().err
    assert not (tmp_path / "made.json").exists()
