"""Pieces over joined files: cut as BEP 3 says, on all cores, in little memory."""

import hashlib
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier.merkle import piece_node, root_of_layer, top
from verifier.piece_hashes import Region, Stream, hash_stream
from verifier.walk import walk

bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces") / "file"
    path.write_bytes(random.Random(1).randbytes(5000))
    return walk(path).files["file"]


@bounded
@given(
    st.lists(st.tuples(st.integers(0, 5000), st.sampled_from("fzu")), max_size=8),
    st.integers(1, 4000),
)
def test_pieces_are_those_of_the_joined_bytes(file, parts, length):
    """``f`` is the file, ``z`` zeros, ``u`` bytes that nobody knows."""
    content = file.location.read_bytes()
    regions = [Region(n, file if kind == "f" else None, kind == "z") for n, kind in parts]
    joined = b"".join(content[:n] if kind == "f" else bytes(n) for n, kind in parts)
    known = b"".join((b"\0" if kind == "u" else b"\1") * n for n, kind in parts)
    found = {}
    for run, digests in hash_stream(Stream(regions, length), lambda _: None):
        found |= dict(zip(run, digests, strict=True))
    cuts = range(0, len(joined), length)
    assert found == {
        piece: hashlib.sha1(joined[at : at + length]).digest()
        for piece, at in enumerate(cuts)
        if 0 not in known[at : at + length]
    }


def test_progress_adds_up_to_the_known_bytes(file):
    heard = []
    regions = [Region(5000, file), Region(10), Region(5000, file)]
    list(hash_stream(Stream(regions, 100), heard.append))
    assert sum(heard) == 5000 + 5010 - 100  # all pieces but the one with unknown bytes


@bounded
@given(st.integers(1, 70), st.sampled_from([1, 2, 4, 16]))
def test_a_layer_leads_to_the_root_of_all_blocks(count, blocks_per_piece):
    """BEP 52: a tree over all blocks, filled with zero hashes, has the same root."""
    blocks = [hashlib.sha256(bytes([n])).digest() for n in range(count)]
    length = blocks_per_piece * 16384
    cuts = range(0, count, blocks_per_piece)
    whole = count <= blocks_per_piece
    layer = [piece_node(blocks[at : at + blocks_per_piece], length, whole=whole) for at in cuts]
    root = layer[0] if whole else root_of_layer(b"".join(layer), length)
    assert root == top(blocks)


def test_ctrl_c_ends_all_threads_at_once(tmp_path):
    with (tmp_path / "big").open("wb") as big:
        big.truncate(1 << 40)
    script = (
        "import sys; from pathlib import Path\n"
        "from verifier.piece_hashes import Region, Stream, hash_stream\n"
        "from verifier.walk import walk\n"
        "file = walk(Path(sys.argv[1])).files['big']\n"
        "print('begun', flush=True)\n"
        "list(hash_stream(Stream([Region(file.size, file)], 1 << 24), lambda _: None))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "big")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            process.stdout.readline()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == -signal.SIGINT
        finally:
            process.kill()
