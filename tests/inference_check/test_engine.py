"""One pass: the same answers whatever the ring, the budget and the device's timing; every byte hashed."""

import os
import struct
import threading

import pytest
import torch

from inference_check.copies import open_copy
from inference_check.errors import NotFinite
from inference_check.leaves import LeafDigests
from inference_check.plan import Item, Plan
from inference_check.ring import Readers, Ring
from inference_check.run import Budget, Questions, Run, run
from inference_check.signs import token_ids
from inference_check.stream import CpuStream
from inference_check.synthetic import Shape, make_checkpoint
from verifier.digests import LEAF_BYTES, hash_leaves, leaf_count
from verifier.errors import ReadError
from verifier.walk import walk

CPU = torch.device("cpu")
SHAPE = Shape(layers=6, width=256, heads=4, kv_heads=2, hidden=704, vocab=4096)
TOKENS = tuple(token_ids("test", 16, SHAPE.vocab))
QUESTIONS = Questions("test", TOKENS, torch.arange(64).expand(16, -1))


@pytest.fixture(scope="module")
def several_leaves(tmp_path_factory):
    """A checkpoint of 13 MB in both layouts; only to be read."""
    root = tmp_path_factory.mktemp("engine")
    for layout in ("hf", "meta"):
        make_checkpoint(root / layout, layout, shape=SHAPE)
    return root


@pytest.fixture
def spend(monkeypatch):
    """Say how many slots there are and how much is kept."""
    return lambda *budget: monkeypatch.setattr(
        "inference_check.run.budget", lambda *_: Budget(*budget)
    )


def ask(folder, questions=QUESTIONS, **options):
    return run(open_copy(folder), questions, device=CPU, **options)


@pytest.mark.parametrize("layout", ["hf", "meta"])
@pytest.mark.parametrize(("slots", "kept"), [(3, 0), (3, 1 << 20), (8, 64 << 20)])
def test_answers_do_not_depend_on_slots_and_edges(several_leaves, spend, layout, slots, kept):
    expected = ask(several_leaves / layout)
    spend(slots, kept)
    found = ask(several_leaves / layout, digests=LeafDigests("sha256"))
    assert torch.allclose(found.answers.logits, expected.answers.logits, rtol=1e-5, atol=1e-5)
    assert found.plan["slots"] == slots and found.plan["kept"] <= kept
    assert (found.plan["bytes_read_twice"] > 1 << 20) == (kept <= 1 << 20)
    assert found.bytes_read == found.plan["bytes_read"]


@pytest.mark.parametrize("kind", ["sha256", "blake3"])
@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_every_leaf_of_every_weight_file_is_hashed_on_the_way(several_leaves, layout, kind):
    folder = several_leaves / layout
    digests = LeafDigests(kind)
    assert ask(folder, digests=digests).complete
    files = {n: f for n, f in walk(folder).files.items() if n.endswith((".pth", ".safetensors"))}
    for name, file in files.items():
        whole = hash_leaves(file, file.size, 0, leaf_count(file.size), (kind,), mapped=False)
        assert digests.complete()[name] == whole[kind]
        assert digests.identities[name] == file.identity
    assert digests.complete().keys() == files.keys()


def test_a_file_without_a_tensor_of_the_model_is_hashed_too(official, tmp_path):
    import shutil

    copy = shutil.copytree(official / "hf", tmp_path / "copy")
    (copy / "notes.bin").write_bytes(b"no tensors at all" * 1000)
    digests = LeafDigests("sha256")
    run(open_copy(copy), Questions("s", (1, 2, 3, 4)), device=CPU, digests=digests)
    assert len(digests.complete()["notes.bin"]) == 32


def test_weights_that_are_not_numbers_still_have_digests(several_leaves, tmp_path):
    import shutil

    copy = shutil.copytree(several_leaves / "hf", tmp_path / "copy")
    shard = copy / "model-00001-of-00002.safetensors"
    opened = open_copy(copy)
    entry = opened.tensors["model.layers.0.mlp.down_proj.weight"].parts[0].entry
    with shard.open("r+b") as file:
        file.seek(entry.start)
        file.write(b"\xff\xff" * 8)
    digests, found = LeafDigests("sha256"), Run()
    with pytest.raises(NotFinite, match="layer 0"):
        run(opened, QUESTIONS, device=CPU, digests=digests, found=found)
    assert found.complete and digests.complete().keys() == opened.files.keys()


def with_odd_header(source, target, odd):
    """The same file with ``odd`` more spaces at the end of its header."""
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + length] + b" " * odd
    target.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])


@pytest.mark.parametrize("odd", [1, 2, 7])
def test_a_header_of_any_length_moves_no_entry(several_leaves, tmp_path, odd):
    for file in (several_leaves / "hf").iterdir():
        if file.suffix == ".safetensors":
            with_odd_header(file, tmp_path / file.name, odd)
        else:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    expected, found = ask(several_leaves / "hf"), ask(tmp_path, digests=LeafDigests("sha256"))
    assert torch.allclose(found.answers.logits, expected.answers.logits, rtol=1e-5, atol=1e-5)
    for name, signature in expected.signatures.items():
        assert torch.allclose(found.signatures[name], signature, atol=1e-4), name


class LateStream(CpuStream):
    """A device that is slow: what was uploaded arrives only when its event is waited for."""

    def __init__(self):
        super().__init__()
        self.in_flight = 1
        self.blocks = [torch.empty(LEAF_BYTES + 64, dtype=torch.uint8) for _ in range(2)]
        self.turn, self.uploads = 0, 0

    def upload(self, stored):
        self.turn, self.uploads = 1 - self.turn, self.uploads + 1
        block = self.blocks[self.turn]
        block.fill_(255)  # whatever still reads the last block sees no numbers
        block[: stored.numel()].copy_(stored)
        source, copied = stored, stored.clone()

        class Event:
            def synchronize(self):
                # The slot may not have been read into again before its copy was complete.
                assert torch.equal(source, copied)

        return block[: stored.numel()], Event()


@pytest.mark.parametrize("kept", [0, 8 << 20])
def test_a_slot_is_not_filled_again_before_its_copy_is_complete(several_leaves, spend, kept):
    expected = ask(several_leaves / "hf")
    spend(3, kept)
    stream = LateStream()
    found = ask(several_leaves / "hf", stream=stream, digests=LeafDigests("sha256"))
    assert stream.uploads > 10
    assert torch.allclose(found.answers.logits, expected.answers.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: os.truncate(path, 5 << 20), "shorter|changed"),
        (lambda path: os.utime(path, (1, 1)), "changed"),
        (lambda path: overwrite(path), "changed"),
    ],
)
def test_a_file_that_changes_meanwhile_is_noticed(several_leaves, tmp_path, spend, spoil, said):
    import shutil

    copy = shutil.copytree(several_leaves / "hf", tmp_path / "copy")
    spend(3, 0)
    done = False

    def report(read, total):
        nonlocal done
        if read > total // 3 and not done:
            done = True
            spoil(copy / "model-00002-of-00002.safetensors")

    found, before = Run(), threading.active_count()
    with pytest.raises(ReadError, match=said):
        ask(copy, report=report, digests=LeafDigests("sha256"), found=found)
    assert not found.complete
    assert threading.active_count() == before


def overwrite(path):
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"other")


def test_the_first_error_of_a_thread_ends_all_of_them():
    plan = Plan({"a": 40 * LEAF_BYTES}, {}, [], 0, True)
    ring = Ring(CpuStream().slots(2), plan.items())

    def fill(load):
        if load.item.leaf == 5:
            raise ReadError("a", "it cannot be read")

    readers = Readers(ring, 3, fill, lambda load: None)
    with pytest.raises(ReadError):
        ring.take()
    readers.join()


def test_items_are_taken_in_the_order_of_the_plan_by_any_number_of_readers():
    from verifier.layouts import LogicalTensor, Part
    from verifier.readers import TensorEntry

    entry = TensorEntry("a", "F16", (8192, 2048), "a", 0, 32 << 20)
    tensors = {"a": LogicalTensor("a", "", "F16", entry.shape, (Part(entry),))}
    ring = Ring(CpuStream().slots(3), Plan({"a": 32 << 20}, tensors, [("a",)], 0, True).items())
    readers = Readers(ring, 4, lambda load: None, lambda load: None)
    taken = []
    while (load := ring.take()) is not None:
        taken.append(load.item)
        ring.release(load)
    readers.join()
    assert [item.leaf for item in taken] == [*range(8), None]
    assert taken[-1] == Item()
