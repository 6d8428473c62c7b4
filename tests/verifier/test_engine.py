"""The digest engine: right digests, on any number of processes, of files that will not hold still."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier import digests, engine, walk
from verifier.walk import ChangedError

LEAF = digests.LEAF_BYTES


def run(folder, *names, workers=None, **kinds):
    listing = walk.walk(folder)
    jobs = [engine.Job(listing.files[name], **kinds) for name in names]
    read = []
    results = list(engine.run(jobs, read.append, workers=workers))
    return {result.job.file.name: result for result in results}, sum(read)


def pieces_root(data):
    """BEP 52, written as it is defined: hash all blocks, pad with zeros to a power of two."""
    blocks = [hashlib.sha256(data[i : i + 16384]).digest() for i in range(0, len(data), 16384)]
    while len(blocks) & (len(blocks) - 1):
        blocks.append(bytes(32))
    while len(blocks) > 1:
        pairs = zip(blocks[::2], blocks[1::2], strict=True)
        blocks = [hashlib.sha256(left + right).digest() for left, right in pairs]
    return blocks[0].hex()


def content(size, seed=0):
    return hashlib.shake_256(b"%d" % seed).digest(size)


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF + 5])
def test_every_digest_is_what_its_definition_says(tmp_path, size):
    data = content(size)
    (tmp_path / "a").write_bytes(data)
    results, read = run(
        tmp_path,
        "a",
        leaf_kinds=("sha256", "blake3", "bt2"),
        whole_kinds=("sha256", "git_sha1", "md5"),
    )
    result = results["a"]
    parts = [data[i : i + LEAF] for i in range(0, size, LEAF)]
    assert result.leaves["sha256"] == b"".join(hashlib.sha256(p).digest() for p in parts)
    assert result.leaves["blake3"] == b"".join(blake3(p).digest() for p in parts)
    bt2 = digests.bt2_root(bytes(result.leaves["bt2"]))
    assert bt2 == (pieces_root(data) if size else None)
    assert result.whole == {
        "sha256": hashlib.sha256(data).hexdigest(),
        "git_sha1": hashlib.sha1(b"blob %d\0" % size + data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
    }
    assert read == 2 * size


def test_child_processes_find_the_same(tmp_path, monkeypatch):
    for number, size in enumerate([20 * LEAF + 9, 3, 0, LEAF]):
        (tmp_path / str(number)).write_bytes(content(size, number))
    names = ["0", "1", "2", "3"]
    kinds = {"leaf_kinds": ("blake3",), "whole_kinds": ("sha256",)}
    here, read_here = run(tmp_path, *names, workers=0, **kinds)
    monkeypatch.setattr(engine, "SMALL_BYTES", 0)
    there, read_there = run(tmp_path, *names, workers=3, **kinds)
    assert read_here == read_there
    for name in names:
        assert here[name].leaves == there[name].leaves
        assert here[name].whole == there[name].whole
        assert there[name].error is None


@given(st.lists(st.integers(0, 3 * LEAF), min_size=1, max_size=4), st.integers(1, 3))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_limit_bounds_what_is_hashed(tmp_path, sizes, leaves):
    for number, size in enumerate(sizes):
        (tmp_path / str(number)).write_bytes(bytes(size))
    names = [str(number) for number in range(len(sizes))]
    results, _ = run(tmp_path, *names, leaf_kinds=("blake3",), limit=leaves * LEAF)
    for name, size in zip(names, sizes, strict=True):
        count = min(digests.leaf_count(size), leaves)
        assert len(results[name].leaves["blake3"]) == 32 * count


def test_a_file_that_shrinks_under_a_map_ends_a_child_and_not_us(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "SMALL_BYTES", 0)
    path = tmp_path / "shrinks"
    path.write_bytes(bytes(40 * LEAF))
    (tmp_path / "stays").write_bytes(content(3 * LEAF))
    listing = walk.walk(tmp_path)
    # Without the check of sizes the map reaches beyond the end, as when a file shrinks while mapped.
    monkeypatch.setattr(digests, "open_found", lambda f: os.open(f.location, os.O_RDONLY))
    real_map = digests.mmap.mmap

    def map_then_shrink(descriptor, *arguments, **options):
        mapping = real_map(descriptor, *arguments, **options)
        if os.fstat(descriptor).st_size == 40 * LEAF:
            os.truncate(path, 0)
        return mapping

    monkeypatch.setattr(digests.mmap, "mmap", map_then_shrink)
    jobs = [engine.Job(file, leaf_kinds=("sha256",)) for file in listing.files.values()]
    results = {r.job.file.name: r for r in engine.run(jobs, lambda n: None, workers=2)}
    assert isinstance(results["shrinks"].error, ChangedError)
    assert results["stays"].error is None


def test_a_file_written_to_meanwhile_is_noticed(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(LEAF))
    file = walk.walk(tmp_path).files["a"]

    def write(read):
        path.write_bytes(b"x" * LEAF)

    (result,) = engine.run([engine.Job(file, leaf_kinds=("sha256",))], write)
    assert isinstance(result.error, ChangedError)


def test_an_unreadable_file_is_an_answer_not_an_exception(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    file = walk.walk(tmp_path).files["a"]
    (tmp_path / "a").unlink()
    (result,) = engine.run([engine.Job(file, whole_kinds=("sha256",))], lambda n: None)
    assert "cannot be read" in result.error.message


def test_children_do_not_outlive_a_killed_parent(tmp_path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 << 30)
    script = """
        import sys
        from pathlib import Path
        from verifier import engine, walk
        file = walk.walk(Path(sys.argv[1])).files["big"]
        for _ in engine.run(
            [engine.Job(file, leaf_kinds=("sha256",))], lambda n: print("read", flush=True)
        ):
            pass
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a child is still there")
