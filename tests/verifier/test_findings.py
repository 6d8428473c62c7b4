"""Every code of finding has a way to provoke it. A new code asks here how."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import gguf
import numpy
import pytest
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

from tests.verifier import torrents
from tests.verifier.conftest import LEAF, SECOND, SHARD, Published, flip, sign_again
from tests.verifier.publisher import Publisher
from verifier import engine, inference_run, weights_check
from verifier import verify as verify_module
from verifier.findings import Code, Verdict
from verifier.latest import Recall

Provoke = Callable[[Path, pytest.MonkeyPatch, Published], object]


def damage_manifest(copy, *_):
    bundle = json.loads((copy / "model.sig").read_text())
    bundle["dsseEnvelope"]["payload"] = "e30="
    (copy / "model.sig").write_text(json.dumps(bundle))


def see_newer(copy, monkeypatch, published):
    monkeypatch.setattr("verifier.state.newest_seen", lambda *_: 9)


def trust_a_root(copy, published, **said):
    """Trust the publisher by a root instead of by its key, with a latest.json beside it."""
    publisher = Publisher(release=published.signer.key)
    folder = copy.parent / "trust"
    folder.mkdir()
    publisher.write(folder)
    (folder / "latest.json").write_bytes(publisher.latest(**said))
    return ["--trusted-key", folder / "root.json"]


def revoke_the_key(copy, _, published):
    publisher = Publisher(release=published.signer.key)
    publisher.revoke_release("It was copied.")
    publisher.write(copy.parent)
    return ["--trusted-key", copy.parent / "root.json"]


def let_the_word_expire(copy, _, published):
    return trust_a_root(copy, published, at=datetime(2026, 1, 1, tzinfo=UTC))


def recall_it(copy, _, published):
    recall = Recall("Its tokenizer was wrong.", "test/tiny@2", datetime.now(UTC))
    return trust_a_root(copy, published, recalls={"test/tiny@1": recall})


def publish_a_newer_version(copy, _, published):
    return trust_a_root(copy, published, newest={"test/tiny": "2"})


def give_a_list(copy, *_):
    digest = hashlib.sha256((copy / SHARD).read_bytes()).hexdigest()
    (copy / "SHA256SUMS").write_text(f"{digest}  {SHARD}\n")
    return ["--manifest", copy / "SHA256SUMS"]


def remove_leaves(copy, *_):
    (copy / ".weighbridge" / "leaves.b3").unlink()


def change_leaves(copy, *_):
    (copy / ".weighbridge" / "leaves.b3").write_bytes(b"")


def sign_wrong_whole_digest(copy, _, published):
    sign_again(copy, published.signer, {"config.json": "0" * 64})


def name_with_bad_bytes(copy, *_):
    (copy / os.fsdecode(b"\xff")).touch()


def link_out(copy, *_):
    (copy / SHARD).unlink()
    (copy / SHARD).symlink_to("/etc/passwd")


def make_pipe(copy, *_):
    (copy / SHARD).unlink()
    os.mkfifo(copy / SHARD)


def make_unreadable(copy, monkeypatch, _):
    def refuse(file):
        raise engine.ReadError(file.name, "it cannot be read: Permission denied")

    monkeypatch.setattr("verifier.digests.open_found", refuse)


def change_meanwhile(copy, monkeypatch, _):
    check = engine.check_unchanged

    def touch_and_check(file):
        os.utime(file.location)
        check(file)

    monkeypatch.setattr(engine, "check_unchanged", touch_and_check)


def allow_few_files(copy, monkeypatch, _):
    walk = verify_module.walk
    monkeypatch.setattr(
        verify_module, "walk", lambda root, skip: walk(root, skip=skip, max_files=2)
    )


def dig_deep(copy, *_):
    copy.joinpath(*["d"] * 40).mkdir(parents=True)


def other_values(copy, *_):
    for shard in (SHARD, SECOND):
        tensors = load_file(copy / shard)
        noise = numpy.random.default_rng(1)
        save_file(
            {k: noise.standard_normal(v.shape).astype("float32") for k, v in tensors.items()},
            copy / shard,
        )


def compared_as_different(copy, monkeypatch, _):
    """The finding alone; test_values.py and the tests of lineage make real differences."""
    other_values(copy)
    check = weights_check.WeightsCheck({"status": "compared"}, Verdict.UNRELATED)
    check.findings.append(weights_check._difference([], {"changed": 4}, 4))
    monkeypatch.setattr(weights_check, "check_weights", lambda *_, **__: check)


def remove_value_digests(copy, *_):
    (copy / ".weighbridge" / "tensors.json").unlink(missing_ok=True)
    flip(copy / SHARD, LEAF)


def quantize_other_values(copy, _, published):
    """A quantized copy beside the official weights, every scale of it half as large again."""
    writer = gguf.GGUFWriter(copy / "model.gguf", "other")
    for shard in (SHARD, SECOND):
        for name, tensor in load_file(copy / shard).items():
            data = gguf.quants.quantize(1.5 * tensor, Type.Q8_0)
            writer.add_tensor(name, data, raw_dtype=Type.Q8_0)
        (copy / shard).unlink()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ["--official", published.folder]


def answer_otherwise(copy, monkeypatch, published):
    (copy / ".weighbridge" / "reference.json").write_text("{}")
    sign_again(copy, published.signer)
    answer = {"status": "disagrees", "reason": "position 3 is off", "device": "cpu"}
    monkeypatch.setattr(inference_run, "run", lambda *_: answer)


def torrent_of(copy, version, change=lambda folder: None, spoil=lambda fields: None):
    """Judge a torrent of a changed copy against the copy."""
    folder = shutil.copytree(copy, copy.with_name("other"))
    change(folder)
    data = torrents.changed(torrents.make(folder, version, piece=1 << 20), spoil)
    copy.with_name("x.torrent").write_bytes(data)
    return ["--torrent", copy.with_name("x.torrent")]


def torrent_differs(copy, *_):
    return torrent_of(copy, "v2", lambda folder: flip(folder / SHARD, 0))


def torrent_not_told(copy, *_):
    return torrent_of(copy, "v1")


def torrent_half_not_told(copy, *_):
    return torrent_of(copy, "hybrid")


def torrent_moved(copy, *_):
    return torrent_of(copy, "v2", lambda folder: (folder / SHARD).rename(folder / "x.bin"))


def torrent_irregular(copy, *_):
    options = torrent_of(copy, "v2")
    top = options[1].read_bytes()[1:-1]  # creation date, info, piece layers
    creation, rest = top[: top.index(b"4:info")], top[top.index(b"4:info") :]
    options[1].write_bytes(b"d" + rest + creation + b"e")
    return options


def torrent_contradicts(copy, *_):
    def spoil(fields):
        fields[b"info"][b"files"][0][b"path"] = [b"other"]

    return torrent_of(copy, "hybrid", spoil=spoil)


def official_not_used(copy, *_):
    options = torrent_of(copy, "v2")
    official = shutil.copytree(copy, copy.with_name("official"))
    flip(official / SHARD, 0)
    return [*options, "--official", official]


PROVOKE: dict[Code, Provoke] = {
    Code.BAD_SIGNATURE: damage_manifest,
    Code.REVOKED: revoke_the_key,
    Code.ROLLBACK: see_newer,
    Code.STALE: let_the_word_expire,
    Code.RECALLED: recall_it,
    Code.NEWER_VERSION: publish_a_newer_version,
    Code.UNSIGNED: give_a_list,
    Code.SIDE_FILE_MISSING: remove_leaves,
    Code.SIDE_FILE_DIFFERS: change_leaves,
    Code.MISSING: lambda copy, *_: (copy / SHARD).unlink(),
    Code.DAMAGED: lambda copy, *_: flip(copy / SHARD, LEAF),
    Code.WHOLE_DIFFERS: sign_wrong_whole_digest,
    Code.UNLISTED: lambda copy, *_: (copy / "a\nb").touch(),
    Code.BAD_NAME: name_with_bad_bytes,
    Code.LINK: link_out,
    Code.NOT_A_FILE: make_pipe,
    Code.UNREADABLE: make_unreadable,
    Code.CHANGED: change_meanwhile,
    Code.TOO_MANY: allow_few_files,
    Code.TOO_DEEP: dig_deep,
    Code.WEIGHTS_REFUSED: lambda copy, *_: (copy / SHARD).write_text("<html>"),
    Code.WEIGHTS_DIFFER: compared_as_different,
    Code.WEIGHTS_NOT_COMPARED: remove_value_digests,
    Code.NOT_REDERIVED: quantize_other_values,
    Code.INFERENCE_DISAGREES: answer_otherwise,
    Code.TORRENT_DIFFERS: torrent_differs,
    Code.TORRENT_NOT_TOLD: torrent_not_told,
    Code.TORRENT_HALF_NOT_TOLD: torrent_half_not_told,
    Code.TORRENT_MOVED: torrent_moved,
    Code.TORRENT_IRREGULAR: torrent_irregular,
    Code.TORRENT_CONTRADICTS: torrent_contradicts,
    Code.OFFICIAL_NOT_USED: official_not_used,
}
ONLY_FINDINGS = {
    Code.STALE,
    Code.RECALLED,
    Code.NEWER_VERSION,
    Code.UNSIGNED,
    Code.SIDE_FILE_MISSING,
    Code.SIDE_FILE_DIFFERS,
    Code.UNLISTED,
    Code.BAD_NAME,
    Code.TOO_MANY,
    Code.TOO_DEEP,
    Code.TORRENT_MOVED,
    Code.TORRENT_IRREGULAR,
    Code.OFFICIAL_NOT_USED,
}


@pytest.mark.parametrize("code", Code)
def test_every_code_can_be_provoked(code, copy, verify, published, monkeypatch):
    options = PROVOKE[code](copy, monkeypatch, published)
    options = options if isinstance(options, list) else []
    outcome = verify(copy, "--whole", "--checks", "files,weights,inference", *options)
    assert code.value in outcome.codes
    assert outcome.status == (0 if code in ONLY_FINDINGS else 1)
    assert outcome.sentence
    for finding in outcome.report["findings"]:
        assert "\n" not in finding["message"]


@pytest.mark.parametrize("provoke", [link_out, make_pipe, make_unreadable, change_meanwhile])
def test_what_is_wrong_with_a_listed_file_is_never_accepted(
    copy, verify, published, monkeypatch, provoke
):
    provoke(copy, monkeypatch, published)
    accept = [part for verdict in ("damaged", "undetermined") for part in ("--accept", verdict)]
    assert verify(copy, *accept).status == 1


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd"])
def test_a_weight_file_that_cannot_be_read_is_not_overlooked(copy, verify, target):
    """Beside missing shards it could be anything, so the copy is not merely incomplete."""
    (copy / SHARD).unlink()
    (copy / "other.safetensors").symlink_to(target)
    outcome = verify(copy, "--accept", "incomplete", "--accept", "undetermined")
    assert outcome.report["verdict"] == "undetermined"
    assert outcome.status == 1


def test_a_link_beside_an_identical_copy_is_a_finding_only(copy, verify):
    (copy / "other.safetensors").symlink_to("/dev/zero")
    outcome = verify(copy)
    assert outcome.codes == {"link"}
    assert outcome.status == 0
