"""Verifying copies: what differs, where, and why where that is plain."""

import json
import os
import shutil
import struct

import pytest

from tests.verifier.conftest import LEAF, SHARD, flip
from verifier import engine


def test_an_honest_copy_is_identical(copy, verify):
    outcome = verify(copy, "--checks", "files")
    assert outcome.status == 0
    report = outcome.report
    assert report["schema"] == "weighbridge.report/1"
    assert report["verdict"] == "identical"
    assert report["checkpoint"] == "test/tiny@1"
    assert report["findings"] == []
    assert {file["status"] for file in report["files"]} == {"good"}
    assert report["manifest"]["revision"] == 1
    assert report["bytes_read"] == sum(file["size"] for file in report["files"])
    assert "identical" in outcome.sentence


@pytest.mark.parametrize("options", [["--digest", "sha256"], ["--whole"], []])
@pytest.mark.parametrize("small", [0, 1 << 40], ids=["children", "here"])
def test_one_flipped_bit_is_named_by_file_leaf_and_tensor(
    copy, verify, options, small, monkeypatch
):
    monkeypatch.setattr(engine, "SMALL_BYTES", small)
    flip(copy / SHARD, 2 * LEAF + 100)
    outcome = verify(copy, *options)
    size = (copy / SHARD).stat().st_size
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "damaged"]
    assert outcome.status == 1
    assert outcome.report["verdict"] == "damaged"
    assert finding["path"] == SHARD
    assert finding["ranges"] == [[2 * LEAF, size]]
    assert finding["tensors"] == ["layers.0.b"]
    assert "damaged" in outcome.sentence
    assert SHARD in outcome.sentence


def test_without_leaves_a_whole_file_is_damaged(copy, verify):
    shutil.rmtree(copy / ".weighbridge")
    assert verify(copy).report["verdict"] == "identical"
    flip(copy / "config.json", 0)
    (finding,) = [f for f in verify(copy).report["findings"] if f["code"] == "damaged"]
    assert finding["ranges"] == [[0, (copy / "config.json").stat().st_size]]


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_a_missing_file_makes_it_incomplete(copy, verify, name):
    (copy / name).unlink()
    outcome = verify(copy)
    assert (outcome.status, outcome.report["verdict"]) == (1, "incomplete")
    assert name in outcome.sentence


def test_an_empty_folder_is_incomplete(published, verify, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = verify(tmp_path / "empty", "--manifest", published.folder / "model.sig")
    assert (outcome.status, outcome.report["verdict"]) == (1, "incomplete")
    assert all(file["status"] == "missing" for file in outcome.report["files"])


def test_unlisted_files_are_findings_only(copy, verify):
    (copy / "notes.txt").touch()
    (copy / ".cache" / "huggingface").mkdir(parents=True)
    (copy / ".cache" / "huggingface" / "lock").touch()
    outcome = verify(copy)
    assert outcome.status == 0
    assert [f["path"] for f in outcome.report["findings"]] == ["notes.txt"]


def test_an_accepted_verdict_exits_with_0(copy, verify):
    (copy / SHARD).unlink()
    assert verify(copy, "--accept", "damaged").status == 1
    assert verify(copy, "--accept", "damaged", "--accept", "incomplete").status == 0


def web_page(copy):
    (copy / SHARD).write_text("\n<!DOCTYPE html><html>404 Not Found</html>")


def rewrite_header(copy, header, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with (copy / SHARD).open("r+b") as file:
        file.write(struct.pack("<Q", len(text) if length is None else length) + text)


def lying_length(copy):
    rewrite_header(copy, {}, length=2**63)


def overlapping(copy):
    entry = {"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}
    rewrite_header(copy, {"a": entry, "b": entry})


def nested(copy):
    rewrite_header(copy, b"[" * 100_000 + b"]" * 100_000)


def duplicate_keys(copy):
    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    rewrite_header(copy, b'{"a":' + entry + b',"a":' + entry + b"}")


@pytest.mark.parametrize("spoil", [lying_length, overlapping, nested, duplicate_keys, web_page])
def test_a_shard_that_no_longer_parses_is_damaged(copy, verify, spoil):
    spoil(copy)
    outcome = verify(copy)
    assert (outcome.status, outcome.report["verdict"]) == (1, "damaged")
    assert "weights-refused" in outcome.codes
    assert outcome.sentence


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(copy, verify, tmp_path):
    import pickle
    import zipfile

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    (copy / SHARD).unlink()
    with zipfile.ZipFile(copy / "consolidated.00.pth", "w") as archive:
        archive.writestr("consolidated.00/data.pkl", pickle.dumps(Bomb(), protocol=2))
    outcome = verify(copy)
    assert outcome.status == 1
    assert not (tmp_path / "ran").exists()
    assert outcome.sentence
