"""What is this? The best of many manifests, by digests, values and sketches, in one read."""

import json
import os
import shutil
import time

import blake3
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_check.synthetic import make_checkpoint
from tests.verifier.conftest import flip, publish
from verifier import identify, oms, sketch
from verifier.digests import LeafList
from verifier.files_check import Hasher
from verifier.manifest import Manifest, ManifestFile
from verifier.progress import silent
from verifier.walk import walk

SEEDS = {"llama/a@1": 7, "llama/b@1": 8, "llama/c@1": 9}
FIRST = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory, signer):
    """Three checkpoints of one architecture, and a sketch of each."""
    root = tmp_path_factory.mktemp("catalogue")
    for name, seed in SEEDS.items():
        folder = root / name
        make_checkpoint(folder, "hf", parts=2, seed=seed)
        publish(folder, root / f"work-{seed}", signer, name=name)
        files = sorted(path.name for path in folder.glob("*.safetensors"))
        made = sketch.make(folder, files, b"secret")
        (root / f"{seed}.json").write_text(json.dumps(made))
    return root


@pytest.fixture
def what_is(catalogue, verify):
    """Ask which checkpoint of the catalogue a copy is."""

    def ask(copy, *options, sketches=False):
        given = ["--identify"]
        for name, seed in SEEDS.items():
            given += ["--manifest", catalogue / name / "model.sig"]
            given += ["--sketch", catalogue / f"{seed}.json"] if sketches else []
        outcome = verify(copy, *given, *options)
        return outcome, outcome.report["identified"]["claim"]

    return ask


@pytest.fixture
def copy(catalogue, tmp_path):
    return shutil.copytree(catalogue / "llama/b@1", tmp_path / "copy")


def change(folder, how):
    for path in folder.glob("*.safetensors"):
        save_file({name: how(tensor) for name, tensor in load_file(path).items()}, path)


def test_a_copy_is_named_by_its_files(copy, what_is):
    outcome, claim = what_is(copy)
    assert (outcome.status, claim) == (0, "This is llama/b@1, identical")
    assert outcome.sentence.startswith("This is llama/b@1, identical: ")


def test_the_first_line_for_a_terminal_names_it(copy, catalogue, signer, capsys):
    from verifier.command_line import main

    manifests = [part for n in SEEDS for part in ("--manifest", str(catalogue / n / "model.sig"))]
    key = ["--trusted-key", str(signer.public), "--checks", "files"]
    assert main([str(copy), "--identify", *manifests, *key]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "This is llama/b@1, identical."


def test_the_page_says_it_too(copy, what_is, tmp_path):
    what_is(copy, "--checks", "files", "--report", tmp_path / "page.html")
    assert "<p>This is llama/b@1, identical: every file is there" in (
        (tmp_path / "page.html").read_text()
    )


def test_renamed_files_are_found_by_their_digests(copy, what_is):
    for number, path in enumerate(sorted(copy.glob("*.safetensors"))):
        path.rename(copy / f"weights-{number}.safetensors")
    shutil.rmtree(copy / ".weighbridge")
    outcome, claim = what_is(copy, "--accept", "same-weights")
    assert (outcome.status, claim) == (0, "This is llama/b@1, same-weights")


def test_a_single_renamed_file_is_found(copy, what_is, tmp_path):
    (copy / FIRST).rename(tmp_path / "found.safetensors")
    _, claim = what_is(tmp_path / "found.safetensors")
    assert claim == "This is llama/b@1, identical"


def test_a_damaged_copy_is_named_by_what_is_right_in_it(copy, what_is):
    for path in copy.glob("*.safetensors"):
        flip(path, path.stat().st_size - 1)
    _, claim = what_is(copy)
    assert claim == "This is llama/b@1, damaged"


def test_another_layout_is_named_by_its_values(tmp_path, what_is):
    make_checkpoint(tmp_path / "meta", "meta", parts=2, seed=9)
    _, claim = what_is(tmp_path / "meta")
    assert claim == "This is llama/c@1, same-weights"


def test_a_cast_is_named_by_its_roundings(copy, what_is):
    change(copy, lambda tensor: tensor.bfloat16())
    _, claim = what_is(copy)
    assert claim == "This is llama/b@1, cast"


def test_a_fine_tuned_copy_is_named_by_its_sketch(copy, what_is):
    torch.manual_seed(1)
    change(copy, lambda tensor: tensor + 0.1 * tensor.std() * torch.randn_like(tensor))
    _, claim = what_is(copy, sketches=True)
    assert claim == "This is derived from llama/b@1"
    _, claim = what_is(copy)
    assert claim.startswith("This is not a copy of any of the 3 checkpoints")


def test_another_model_is_none_of_them(tmp_path, what_is):
    make_checkpoint(tmp_path / "other", "hf", parts=2, seed=77)
    outcome, claim = what_is(tmp_path / "other", sketches=True)
    assert outcome.status == 1
    assert claim == "This is not any of the 3 checkpoints known here"


def test_a_folder_of_something_else_is_none_of_them(tmp_path, what_is):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing")
    outcome, claim = what_is(tmp_path / "notes")
    assert outcome.report["verdict"] == "unrelated"
    assert claim == "This is not any of the 3 checkpoints known here"


def test_files_called_as_official_ones_without_a_right_byte_are_none_of_them(tmp_path, what_is):
    (tmp_path / "notes").mkdir()
    for name in (FIRST, "config.json"):
        (tmp_path / "notes" / name).write_bytes(os.urandom(5000))
    outcome, claim = what_is(tmp_path / "notes")
    assert outcome.report["verdict"] == "undetermined"
    assert "llama" not in claim


def test_as_many_sketches_as_manifests(copy, what_is, catalogue, verify):
    given = ["--identify", "--sketch", "-", "--sketch", "-"]
    outcome = verify(copy, "--manifest", catalogue / "llama/a@1/model.sig", *given)
    assert outcome.status == 2 and "one --sketch for each --manifest" in outcome.sentence


def in_memory(number, files):
    """A manifest of files whose content is made from its number, without a signature."""
    entries = {}
    for name, content in files.items():
        leaves = LeafList("blake3", blake3.blake3(content).digest())
        entries[name] = ManifestFile(name, "0" * 64, len(content), leaves={"blake3": leaves})
    statement = oms.Statement(f"m{number}", (), "", "", "", ())
    return Manifest(statement, None, entries, f"m{number}")


def test_fifty_manifests_of_a_thousand_files_cost_one_read(tmp_path):
    def content(number, file):
        return f"{number if file % 2 else 0}-{file}".encode() * 10

    manifests = [
        in_memory(number, {f"part-{f}.safetensors": content(number, f) for f in range(1000)})
        for number in range(50)
    ]
    for file in range(1000):
        (tmp_path / f"part-{file}.safetensors").write_bytes(content(31, file))
    hasher = Hasher(("blake3", "sha256"), False, silent)
    listing = walk(tmp_path)
    started = time.monotonic()
    match = identify.best(listing, manifests, hasher, lambda index: None)
    assert time.monotonic() - started < 5  # 0.6 s on a quiet machine
    assert (match.index, match.complete) == (31, True)
    assert hasher.bytes_read == sum(file.size for file in listing.files.values())


def test_a_file_of_the_same_name_and_another_size_is_hashed_once_for_all_manifests(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(bytes(5000))
    sizes = range(1000, 1050)
    manifests = [in_memory(n, {"w.safetensors": b"x" * size}) for n, size in enumerate(sizes)]
    hasher = Hasher(("blake3",), False, silent)
    identify.best(walk(tmp_path), manifests, hasher, lambda index: None, weights=False)
    assert hasher.bytes_read == 5000
