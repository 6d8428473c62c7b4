"""Whole files and shards, in three hashes: as the reference tool lists them, and as it may not."""

import hashlib
import itertools
import json
import re
import shutil

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signing import hashing, signing
from model_signing._serialization import file_shard

from tests.verifier.conftest import SHARD, flip
from tests.verifier.test_oms import bundle_of
from verifier import dsse, keys, manifest, oms, serialization
from verifier.errors import ManifestError
from verifier.trust import Trust

KEY = ec.generate_private_key(ec.SECP256R1())
TRUST = Trust.in_keys(KEY.public_key())
HASHES = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b, "blake3": blake3}
WEIGHTS = bytes(range(250)) * 10  # 2,500 bytes: two shards of 1,000 and one of 500


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(WEIGHTS)
    (folder / "sub" / "short.txt").write_text("short")
    (folder / "empty.bin").write_bytes(b"")
    return folder


@pytest.fixture
def public(tmp_path):
    path = tmp_path / "key.pub.pem"
    path.write_bytes(dsse.public_pem(KEY.public_key()))
    return path


def reference_sign(folder, out, hashes):
    """Sign with the reference tool's own library, as configured."""
    private = out.with_suffix(".pem")
    private.write_bytes(keys.private_pem(KEY))
    config = signing.Config().use_elliptic_key_signer(private_key=private)
    config.set_hashing_config(hashes).sign(folder, out)
    return out


def in_files(algorithm):
    return hashing.Config().use_file_serialization(hashing_algorithm=algorithm)


def in_shards(algorithm, size):
    config = hashing.Config()
    if algorithm == "blake3":
        # The public way to shards falls back to whole files in BLAKE3; the format has them.
        factory = config._build_sharded_file_hasher_factory("blake3", shard_size=size)
        config._serializer = file_shard.Serializer(factory)
        return config
    return config.use_shard_serialization(hashing_algorithm=algorithm, shard_size=size)


FORMS = {f"files-{a}": in_files(a) for a in ("sha256", "blake2", "blake3")} | {
    f"shards-{a}-{size}": in_shards(a, size)
    for a in ("sha256", "blake2", "blake3")
    for size in (7, 1000, 2500, 10**9)
}


@pytest.mark.parametrize("form", FORMS)
def test_what_the_reference_tool_lists_is_understood(form, folder, tmp_path, public, oms_command):
    bundle = reference_sign(folder, tmp_path / "b.sig", FORMS[form])
    given = ["--method", "key", "--model-path", folder, "--public-key", public, "--bundle", bundle]
    outcome = oms_command("verify-model", *given)
    assert outcome.status == 0, outcome.err
    flip(folder / "weights.bin", 1234)
    refused = oms_command("verify-model", *given)
    assert refused.status != 0
    assert refused.sentence.startswith("weights.bin differs in bytes [")
    flip(folder / "weights.bin", 1234)
    (folder / "empty.bin").write_bytes(b"x")
    assert oms_command("verify-model", *given).status != 0


@pytest.mark.parametrize("algorithm", ["sha256", "blake2", "blake3"])
@pytest.mark.parametrize(
    ("spoil", "verdict", "ranges"),
    [
        (lambda weights: None, "identical", []),
        (lambda weights: flip(weights, 1500), "damaged", [[1000, 2000]]),
        (
            lambda weights: (flip(weights, 1), flip(weights, 2499)),
            "damaged",
            [[0, 1000], [2000, 2500]],
        ),
        (lambda weights: (flip(weights, 999), flip(weights, 1000)), "damaged", [[0, 2000]]),
        (lambda weights: weights.write_bytes(WEIGHTS[:1700]), "damaged", [[1000, 2500]]),
        (lambda weights: weights.write_bytes(WEIGHTS[:2000]), "damaged", [[2000, 2500]]),
        (lambda weights: weights.write_bytes(WEIGHTS + b"more"), "damaged", [[2000, 2504]]),
        (lambda weights: weights.unlink(), "incomplete", []),
    ],
)
def test_verify_finds_the_shards_that_differ(
    spoil, verdict, ranges, algorithm, folder, tmp_path, public, verify
):
    bundle = reference_sign(folder, tmp_path / "b.sig", in_shards(algorithm, 1000))
    spoil(folder / "weights.bin")
    outcome = verify(folder, "--manifest", bundle, "--checks", "files", key=public)
    assert outcome.report["verdict"] == verdict
    found = [f["ranges"] for f in outcome.report["findings"] if f["code"] == "damaged"]
    assert found == ([ranges] if ranges else [])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("weights.bin", None),
        ("../outside", "link out of the folder"),
        ("link", "leads to itself|leads nowhere"),
        ("gone", "leads nowhere"),
    ],
)
def test_links_are_followed_in_the_model_where_the_signer_did(
    target, reason, folder, tmp_path, public, oms_command
):
    """OMS 1.0, section 6.1.1: `allow_symlinks`; links out of the root and cycles are errors."""
    (tmp_path / "outside").write_bytes(WEIGHTS)
    (folder / "link").symlink_to("weights.bin")
    hashes = in_files("sha256").set_allow_symlinks(True)
    bundle = reference_sign(folder, tmp_path / "b.sig", hashes)
    (folder / "link").unlink()
    (folder / "link").symlink_to(target)
    given = ["--method", "key", "--model-path", folder, "--public-key", public, "--bundle", bundle]
    outcome = oms_command("verify-model", *given)
    assert (outcome.status == 0) is (reason is None), outcome.err
    assert reason is None or re.search(reason, outcome.sentence)


@pytest.mark.parametrize("algorithm", ["sha256", "blake2"])
def test_one_file_of_a_model_in_shards_is_found_by_its_digest(
    algorithm, folder, tmp_path, public, verify
):
    bundle = reference_sign(folder, tmp_path / "b.sig", in_shards(algorithm, 1000))
    renamed = shutil.copy(folder / "weights.bin", tmp_path / "other-name.bin")
    outcome = verify(renamed, "--manifest", bundle, "--checks", "files", key=public)
    assert outcome.report["verdict"] == "identical"


def test_side_files_count_however_they_are_listed(copy, tmp_path, public, verify):
    """Somebody who mirrors a checkpoint may sign it again in shards, side files and all."""
    bundle = copy / "model.sig"
    bundle.unlink()
    shutil.copy(reference_sign(copy, tmp_path / "b.sig", in_shards("sha256", 1 << 20)), bundle)
    loaded = manifest.load(bundle, TRUST)
    assert loaded.revision == 1
    assert loaded.side_file(manifest.TENSORS)
    flip(copy / SHARD, 5 << 20)
    outcome = verify(copy, "--manifest", bundle, "--checks", "files", key=public)
    assert outcome.report["verdict"] == "damaged"
    (finding,) = [f for f in outcome.report["findings"] if f["code"] == "damaged"]
    assert finding["ranges"] == [[4 << 20, 8 << 20]]  # the leaves are coarser, and are used


@given(
    data=st.binary(max_size=300),
    size=st.integers(1, 400),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    kind=st.sampled_from(sorted(HASHES)),
)
@settings(max_examples=200, deadline=None)
def test_shards_are_hashed_alike_in_whatever_portions_they_are_read(data, size, cuts, kind):
    hash_ = serialization.new_hash(f"{kind}-sharded-{size}")
    at = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(at):
        hash_.update(data[start:end])
    shards = [data[i : i + size] for i in range(0, len(data), size)]
    assert hash_.digest() == b"".join(HASHES[kind](shard).digest() for shard in shards)


def test_no_more_shards_are_hashed_than_may_be_signed(monkeypatch):
    monkeypatch.setattr(serialization, "MAX_RESOURCES", 3)
    hash_ = serialization.new_hash("sha256-sharded-1")
    hash_.update(bytes(1000))
    assert len(hash_.digest()) == 3 * 32


DIGEST = hashlib.sha256(b"x").hexdigest()


def statement(rows, **changes):
    """Return signed bytes that list ``rows`` of (name, algorithm, digest) in shards of 10."""
    fields = {"method": "shards", "hash_type": "sha256", "shard_size": 10, "allow_symlinks": False}
    root = hashlib.sha256(b"".join(bytes.fromhex(d) for _, _, d in rows)).hexdigest()
    content = {
        "_type": oms.STATEMENT_TYPE,
        "subject": [{"name": "m", "digest": {"sha256": root}}],
        "predicateType": oms.PREDICATE_TYPE,
        "predicate": {
            "serialization": fields | changes,
            "resources": [{"name": n, "algorithm": a, "digest": d} for n, a, d in rows],
        },
    }
    return bundle_of(json.dumps(content).encode(), KEY)


def shard(label, algorithm="sha256-sharded-10", digest=DIGEST):
    return label, algorithm, digest


@pytest.mark.parametrize(
    "rows",
    [
        [shard("a:0:10"), shard("a:10:15")],
        [shard("a:10:15"), shard("a:0:10")],
        [shard("a:0:10", "sha256"), shard("a:10:15", "sha256")],
        [shard("./a:0:10"), shard("a:10:15")],
    ],
)
def test_shards_may_come_in_any_order_and_under_either_name(rows):
    """OMS 1.0, section 6.3.2: the plain name; the reference tool: the longer."""
    (resource,) = oms.verify(statement(rows), TRUST).resources
    assert (resource.name, resource.size) == ("a", 15)


def test_a_name_may_hold_colons():
    """Section 6.3.2: the last two numbers are the shard's."""
    (resource,) = oms.verify(statement([shard("a:0:5:0:7")]), TRUST).resources
    assert (resource.name, resource.size) == ("a:0:5", 7)


@pytest.mark.parametrize("size", [10, 10.0])
def test_protobuf_writes_numbers_as_floats(size):
    assert oms.verify(statement([shard("a:0:7")], shard_size=size), TRUST).resources


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([shard("a:10:15")], "do not make up one file"),
        ([shard("a:0:10"), shard("a:20:25")], "do not make up one file"),
        ([shard("a:0:10"), shard("a:5:15")], "do not make up one file"),
        ([shard("a:0:9"), shard("a:9:15")], "do not make up one file"),
        ([shard("a:0:15")], "do not make up one file"),
        ([shard("a:0:10"), shard("a:0:7"), shard("a:10:15")], "do not make up one file"),
        ([shard("a:0:10"), shard("a:0:10")], "twice"),
        ([shard("a:0:10"), shard("./a:0:10")], "twice"),
        ([shard("a")], "does not end in"),
        ([shard("a:0:0")], "does not end in"),
        ([shard("a:00:10")], "does not end in"),
        ([shard("a:-1:10")], "does not end in"),
        ([shard("a:0:99999999999999999999")], "does not end in"),
        ([shard("a:0:9999999999999999")], "shards"),
        ([shard(":0:10")], "does not end in"),
        ([shard("../a:0:10")], "not a name inside"),
        ([shard("/a:0:10")], "not a name inside"),
        ([shard("a:0:10", "sha256-sharded-11")], "although it says"),
        ([shard("a:0:10", "blake3")], "although it says"),
        ([shard("a:0:10", digest=DIGEST.upper())], "lowercase"),
        ([shard("a:0:10", digest=DIGEST * 2)], "lowercase"),
        ([shard(".:0:7"), shard("a:0:7")], "lists `.`"),
    ],
)
def test_shards_that_are_not_a_file_are_refused(rows, reason):
    with pytest.raises(ManifestError, match=reason):
        oms.verify(statement(rows), TRUST)


@pytest.mark.parametrize("size", [0, -10, 0.5, 10.5, True, "10", None, 1e300, [10]])
def test_a_shard_size_is_a_positive_whole_number(size):
    with pytest.raises(ManifestError, match="shard"):
        oms.verify(statement([shard("a:0:7")], shard_size=size), TRUST)


def test_blake3_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(serialization, "blake3_available", lambda: False)
    rows = [shard("a:0:7", "blake3")]
    with pytest.raises(ManifestError, match="install the package blake3"):
        oms.verify(statement(rows, hash_type="blake3"), TRUST)


@given(
    rows=st.lists(
        st.tuples(
            st.from_regex(r"[ab./]{0,3}(:[0-9]{1,3}){0,3}", fullmatch=True),
            st.sampled_from(["sha256", "sha256-sharded-10", "x"]),
            st.just(DIGEST),
        ),
        min_size=1,
        max_size=4,
    ),
    size=st.one_of(st.integers(-2, 30), st.floats(), st.none()),
)
@settings(max_examples=300, deadline=None)
def test_any_list_of_shards_is_a_model_or_an_error_of_ours(rows, size):
    try:
        resources = oms.verify(statement(rows, shard_size=size), TRUST).resources
    except ManifestError:
        return
    for resource in resources:
        count = -(-resource.size // int(size))
        assert len(resource.whole) == 64 * count
