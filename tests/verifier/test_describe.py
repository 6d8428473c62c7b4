"""Describing a folder for signing: read only, resumable, and no name that could mislead."""

import json
import os
import subprocess
import sys

import pytest

from tests.verifier.conftest import fill, sign_described
from verifier import describe as module
from verifier import engine
from verifier.describe import Checkpoint, describe
from verifier.errors import InputError
from verifier.progress import silent

TINY = Checkpoint("test/tiny@1", 1, "2026-01-02T03:04:05+00:00")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b.txt").write_text("b")
    (folder / "a.txt").write_text("a")
    return folder


def listed(work):
    return json.loads((work / "resources.json").read_text())["resources"]


def test_every_file_and_side_file_is_listed_in_order(folder, tmp_path):
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    (folder / "model.sig").touch()
    describe(folder, TINY, tmp_path / "work", silent)
    names = [entry["name"] for entry in listed(tmp_path / "work")]
    assert names == [
        ".weighbridge/checkpoint.json",
        ".weighbridge/leaves.b3",
        ".weighbridge/leaves.bin",
        "a.txt",
        "sub/b.txt",
    ]


def test_the_folder_is_only_read(folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    describe(folder, TINY, tmp_path / "work", silent)
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
    with pytest.raises(InputError, match="only read"):
        describe(folder, TINY, folder / "work", silent)
    assert not (folder / "work").exists()


def test_a_file_shared_by_the_family_is_added(folder, tmp_path):
    shared = tmp_path / "tokenizer.model"
    shared.write_text("t")
    describe(folder, TINY, tmp_path / "work", silent, with_files=[shared])
    assert "tokenizer.model" in {entry["name"] for entry in listed(tmp_path / "work")}
    (folder / "tokenizer.model").touch()
    with pytest.raises(InputError, match="name is taken"):
        describe(folder, TINY, tmp_path / "work", silent, with_files=[shared])


def test_a_reference_is_covered(folder, tmp_path):
    reference = tmp_path / "reference.json"
    reference.write_text("{}")
    describe(folder, TINY, tmp_path / "work", silent, reference=reference)
    assert ".weighbridge/reference.json" in {e["name"] for e in listed(tmp_path / "work")}
    describe(folder, TINY, tmp_path / "work", silent)
    assert ".weighbridge/reference.json" not in {e["name"] for e in listed(tmp_path / "work")}


def test_no_finished_file_is_hashed_again(folder, tmp_path, monkeypatch):
    hashed = []
    run = module.engine.run

    def interrupted(jobs, advance):
        for result in run(jobs, advance):
            if len(hashed) == 1:
                raise KeyboardInterrupt
            hashed.append(result.job.file.name)
            yield result

    monkeypatch.setattr(module.engine, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        describe(folder, TINY, tmp_path / "work", silent)
    assert not (tmp_path / "work" / "resources.json").exists()

    def counted(jobs, advance):
        hashed.extend(job.file.name for job in jobs)
        return run(jobs, advance)

    monkeypatch.setattr(module.engine, "run", counted)
    describe(folder, TINY, tmp_path / "work", silent)
    assert sorted(hashed) == ["a.txt", "sub/b.txt"]
    os.utime(folder / "a.txt")
    describe(folder, TINY, tmp_path / "work", silent)
    assert sorted(hashed) == ["a.txt", "a.txt", "sub/b.txt"]


def test_a_second_run_says_the_same(folder, tmp_path):
    describe(folder, TINY, tmp_path / "one", silent)
    describe(folder, TINY, tmp_path / "two", silent)
    describe(folder, TINY, tmp_path / "two", silent)
    assert listed(tmp_path / "one") == listed(tmp_path / "two")


def link_out(folder):
    (folder / "link").symlink_to("/etc/passwd")


def device(folder):
    (folder / "link").symlink_to("/dev/zero")


def pipe(folder):
    os.mkfifo(folder / "pipe")


def not_utf8(folder):
    (folder / os.fsdecode(b"\xff")).touch()


def newline(folder):
    (folder / "a\nb").touch()


def same_but_for_case(folder):
    (folder / "A.TXT").touch()


def empty(folder):
    for path in [folder / "a.txt", folder / "sub" / "b.txt"]:
        path.unlink()


@pytest.mark.parametrize(
    "spoil", [link_out, device, pipe, not_utf8, newline, same_but_for_case, empty]
)
def test_what_should_not_be_published_is_refused_in_one_sentence(folder, tmp_path, spoil):
    spoil(folder)
    with pytest.raises(InputError) as error:
        describe(folder, TINY, tmp_path / "work", silent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "llama"},
        {"name": "../7b@1"},
        {"revision": 0},
        {"issued": "yesterday"},
        {"issued": "2026-01-02T03:04:05"},
        {"previous": "abc"},
    ],
)
def test_a_wrong_description_is_refused(folder, tmp_path, changes):
    fields = {"name": TINY.name, "revision": 1, "issued": TINY.issued} | changes
    with pytest.raises(InputError):
        describe(folder, Checkpoint(**fields), tmp_path / "work", silent)


def test_a_file_that_changes_while_it_is_hashed_is_refused(folder, tmp_path, monkeypatch):
    check = engine.check_unchanged

    def change_first(file):
        file.location.write_text("changed meanwhile")
        check(file)

    monkeypatch.setattr(engine, "check_unchanged", change_first)
    with pytest.raises(InputError, match="changed while"):
        describe(folder, TINY, tmp_path / "work", silent)


def test_a_file_that_changes_after_it_was_hashed_is_refused(folder, tmp_path, monkeypatch):
    def write_values(*_):
        (folder / "a.txt").write_text("b")
        return []

    monkeypatch.setattr(module, "_write_values", write_values)
    with pytest.raises(InputError, match="changed while"):
        describe(folder, TINY, tmp_path / "work", silent)
    assert not (tmp_path / "work" / "resources.json").exists()


def test_checkpoints_without_tensors_can_be_published(folder, tmp_path):
    (note,) = describe(folder, TINY, tmp_path / "work", silent)
    assert "no file with tensors" in note


@pytest.mark.slow
def test_a_sparse_file_over_4_gib_is_described_and_verified_in_little_memory(tmp_path, signer):
    folder, work = tmp_path / "model", tmp_path / "work"
    folder.mkdir()
    with (folder / "data").open("wb") as file:
        file.truncate((4 << 30) + 5)
    described = peak("describe", folder, "--name", "test/big@1", "--revision", "1", "--out", work,
                     "--issued", TINY.issued)  # fmt: skip
    sizes = {entry["name"]: entry["size"] for entry in listed(work)}
    assert sizes["data"] == (4 << 30) + 5
    assert sizes[".weighbridge/leaves.b3"] == 32 * 1025
    sign_described(folder, work, signer, "test/big@1")
    verified = peak(folder, "--trusted-key", signer.public, "--checks", "files")
    assert max(described, verified) < 200 << 20


def peak(*arguments):
    """Run the command and return the largest resident memory of its processes, in bytes.

    The peak of a process counts from its start; what rusage says of it includes who started it.
    """
    script = (
        "import re, resource, sys; from verifier.command_line import main;"
        "assert main(sys.argv[1:]) == 0;"
        "own = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]);"
        "print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) << 10


def test_shards_are_described_with_their_leaves(tmp_path):
    describe(fill(tmp_path / "tiny"), TINY, tmp_path / "work", silent)
    content = json.loads((tmp_path / "work" / ".weighbridge" / "checkpoint.json").read_text())
    assert content["checkpoint"] == "test/tiny@1"
    assert set(content["files"]) >= {"config.json", "model-00001-of-00002.safetensors"}
    leaves = (tmp_path / "work" / ".weighbridge" / "leaves.bin").stat().st_size
    assert leaves == 32 * (1 + 3 + 2 + 1)
