"""Lists of digests that others made: coreutils is the oracle for how they are written."""

import hashlib
import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verifier.conftest import SHARD, flip
from verifier import lists, names
from verifier.errors import ManifestError
from verifier.findings import Code

TOOLS = ["md5sum", "sha1sum", "sha256sum", "sha512sum"]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("tag", [[], ["--tag"], ["-b"]])
def test_what_coreutils_writes_is_read(copy, verify, tool, tag, tmp_path):
    (copy / "line\nbreak \\ *odd").write_text("x")
    names = [p.name for p in copy.iterdir() if p.is_file() and p.name != "model.sig"]
    written = subprocess.run([tool, *tag, *names], cwd=copy, capture_output=True, check=True)
    (tmp_path / "SUMS").write_bytes(written.stdout)
    outcome = verify(copy, "--manifest", tmp_path / "SUMS", key=None)
    assert (outcome.status, outcome.report["verdict"]) == (0, "identical")
    assert "matches the list, which nobody signed" in outcome.sentence
    assert outcome.report["manifest"]["signed_by"] is None
    assert {file["status"] for file in outcome.report["files"]} == {"good"}
    flip(copy / SHARD, 9_000_000)
    outcome = verify(copy, "--manifest", tmp_path / "SUMS", key=None)
    assert (outcome.status, outcome.report["verdict"]) == (1, "damaged")


def test_a_hugging_face_tree_names_large_files_by_sha256_and_others_as_git_does(
    copy, verify, tmp_path
):
    listed = [{"type": "directory", "path": "sub", "oid": "0" * 40, "size": 0}]
    for path in copy.iterdir():
        if path.is_file() and path.name != "model.sig":
            data = path.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"type": "file", "path": path.name, "size": len(data), "oid": git}
            if path.suffix == ".safetensors":
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
            listed.append(entry)
    (tmp_path / "tree.json").write_text(json.dumps(listed))
    given = ["--manifest", tmp_path / "tree.json"]
    assert verify(copy, *given, key=None).report["verdict"] == "identical"
    (copy / "config.json").write_text("{}")
    assert verify(copy, *given, key=None).report["verdict"] == "damaged"


def test_the_checklist_of_meta_is_read_beside_its_files(copy, verify):
    shutil.rmtree(copy / ".weighbridge")
    digest = hashlib.md5((copy / SHARD).read_bytes()).hexdigest()
    (copy / "checklist.chk").write_text(f"{digest}  {SHARD}\r\n# a note\r\n\r\n")
    outcome = verify(copy, "--manifest", copy / "checklist.chk", key=None)
    assert outcome.report["verdict"] == "identical"
    assert "checklist.chk" not in {file["path"] for file in outcome.report["files"]}
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "unsigned"]
    assert "MD5" in finding["message"]


HEX = "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        f"{HEX}",
        f"{HEX}0  a",
        f"{HEX}  ../a",
        f"{HEX}  /etc/passwd",
        f"{HEX}  a\0b",
        f"{HEX}  a\n{HEX}  ./a",
        f"MD5 (a) = {HEX}",
        f"\ufeff{HEX}  a",
        "hello world",
        "[",
        "[" * 100_000,
        "[1]",
        '[{"type": "file", "path": "a", "size": -1, "oid": "0"}]',
        '[{"type": "file", "path": "a", "size": 1, "oid": "0"}]',
        '[{"type": "file", "type": "file"}]',
    ],
)
def test_a_list_that_is_not_one_is_refused(copy, verify, tmp_path, text):
    (tmp_path / "SUMS").write_text(text)
    outcome = verify(copy, "--manifest", tmp_path / "SUMS", key=None)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.sentence


@given(st.binary(max_size=300).filter(lists.is_list))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_list_or_an_error_of_ours(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(data)
    try:
        loaded = lists.load(path)
    except ManifestError as error:
        assert str(error).endswith(".")
        return
    assert loaded.files
    assert [finding.code for finding in loaded.findings] == [Code.UNSIGNED]
    for name, file in loaded.files.items():
        assert name == file.name == names.safe(name)
        assert re.fullmatch("[0-9a-f]{32,128}", file.whole)
