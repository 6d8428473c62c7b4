"""PyTorch files through the opcode reader: as torch.load reads them, and never executed."""

import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier.readers import ReadError, opcodes, read_tensors

NAME = "consolidated.00.pth"


def refusal(folder):
    with pytest.raises(ReadError) as caught:
        read_tensors(folder, NAME)
    assert "\n" not in str(caught.value)
    return caught.value.message


def some_tensors():
    tensor = torch.randn(3, 4)
    return {
        "a": tensor,
        "tied": tensor,
        "half": torch.randn(5).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "deep": {"list": [torch.arange(4), {"x": torch.ones(2, dtype=torch.bool)}]},
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "row": torch.randn(4, 4)[2],
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(1.5),
        "epoch": 3,
    }


def flat(tree, prefix=""):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value.detach()
        elif isinstance(value, dict | list):
            yield from flat(value, f"{prefix}{key}.")


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_every_tensor_lies_where_torch_finds_it(tmp_path, is_zip):
    torch.save(some_tensors(), tmp_path / NAME, _use_new_zipfile_serialization=is_zip)
    data = (tmp_path / NAME).read_bytes()
    expected = dict(flat(torch.load(tmp_path / NAME, weights_only=True)))
    entries = read_tensors(tmp_path, NAME)
    assert {entry.name for entry in entries} == set(expected)
    for entry in entries:
        raw = expected[entry.name].contiguous().flatten().view(torch.uint8).numpy().tobytes()
        assert entry.shape == tuple(expected[entry.name].shape)
        assert data[entry.start : entry.end] == raw


def test_a_module_state_and_narrow_floats_are_read(tmp_path):
    state = torch.nn.Linear(3, 2).state_dict()
    state["narrow"] = torch.randn(4).to(torch.float8_e4m3fn)
    torch.save(state, tmp_path / NAME)
    found = {entry.name: entry.dtype for entry in read_tensors(tmp_path, NAME)}
    assert found == {"weight": "F32", "bias": "F32", "narrow": "F8_E4M3"}


@pytest.mark.slow
def test_a_sparse_part_over_4_gib_is_read_through_zip64(tmp_path):
    count = (4 << 30) // 2 + 8
    with zipfile.ZipFile(tmp_path / NAME, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr("c/data.pkl", state({"a": ("HalfStorage", "0", count, (count,), (1,))}))
        header_end = archive.fp.tell()
        info = zipfile.ZipInfo("c/data/0")
        info.CRC = 0
        info.file_size = info.compress_size = 2 * count
        info.header_offset = header_end
        archive.fp.write(info.FileHeader(zip64=True))
        start = archive.fp.tell()
        archive.fp.seek(2 * count, 1)
        archive.start_dir = archive.fp.tell()
        archive.filelist.append(info)
        archive.NameToInfo[info.filename] = info
    (entry,) = read_tensors(tmp_path, NAME)
    assert (entry.start, entry.end) == (start, start + 2 * count)
    assert (tmp_path / NAME).stat().st_blocks * 512 < 1 << 20


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch executed",)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, monkeypatch, is_zip):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / NAME, _use_new_zipfile_serialization=is_zip)
    assert "could run code" in refusal(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_refused(tmp_path, protocol):
    (tmp_path / NAME).write_bytes(pickle.dumps({"a": Evil()}, protocol))
    assert refusal(tmp_path)


def state(tensors, root=OrderedDict):
    """Pickle a dictionary of tensors by hand: name → (storage, key, count, shape, stride)."""
    out = [b"\x80\x02}("]
    for name, (storage, key, count, shape, stride, *offset) in tensors.items():
        out += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
        out += [text("storage"), f"ctorch\n{storage}\n".encode(), text(key), text("cpu")]
        out += [whole(count), b"tQ", whole(*(offset or [0]))]
        out += [b"(" + b"".join(map(whole, n)) + b"t" for n in (shape, stride)]
        out += [b"\x89ccollections\nOrderedDict\n)RtR"]
    return b"".join([*out, b"u."])


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def write(folder, pickled, storages=(("0", bytes(16)),), **kind):
    with zipfile.ZipFile(folder / NAME, "w", **kind) as archive:
        archive.writestr("c/data.pkl", pickled)
        for key, data in storages:
            archive.writestr(f"c/data/{key}", data)
    return folder


GOOD = ("FloatStorage", "0", 4, (2, 2), (2, 1))


def test_the_handmade_state_is_what_torch_would_read(tmp_path):
    (entry,) = read_tensors(write(tmp_path, state({"a": GOOD})), NAME)
    assert (entry.name, entry.dtype, entry.shape) == ("a", "F32", (2, 2))


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (("FloatStorage", "1", 4, (2, 2), (2, 1)), "not there"),
        (("FloatStorage", "0", 5, (2, 2), (2, 1)), "another size"),
        (("FloatStorage", "0", 4, (2, 3), (3, 1)), "beyond its storage"),
        (("FloatStorage", "0", 4, (2, 2), (2, 1), 1), "beyond its storage"),
        (("FloatStorage", "0", 4, (2, 2), (2, 1), -1), "sizes"),
        (("FloatStorage", "0", 4, (2, 2), (1, 2)), "row by row"),
        (("FloatStorage", "0", 4, (2, 2), (-2, -1)), "sizes"),
        (("FloatStorage", "0", 4, (2, 2), (2,)), "shape"),
        (("FloatStorage", "0", 4, (2**47,), (1,)), "beyond its storage"),
        (("FloatStorage", "0", 2**62, (1,), (1,)), "plain storage"),
        (("QUInt8Storage", "0", 4, (2, 2), (2, 1)), "could run code"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, tensor, fault):
    assert fault in refusal(write(tmp_path, state({"a": tensor})))


def test_tensors_may_be_tied_but_not_overlap(tmp_path):
    assert len(read_tensors(write(tmp_path, state({"a": GOOD, "b": GOOD})), NAME)) == 2
    part = ("FloatStorage", "0", 4, (2,), (1,), 1)
    assert "overlap" in refusal(write(tmp_path, state({"a": GOOD, "b": part})))
    large = ("FloatStorage", "0", 4096, (4096,), (1,))
    many = state({f"t{n}": large for n in range(200)})
    assert "again and again" in refusal(write(tmp_path, many, [("0", bytes(4 * 4096))]))


@pytest.mark.parametrize(
    ("pickled", "fault"),
    [
        (b"", "well-formed"),
        (b"\x80\x02", "well-formed"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0.", "protocol 2"),
        (b"\x80\x02N.trailing", "bytes follow"),
        (b"\x80\x02N.", "something other"),
        (b"\x80\x02X\xff\xff\xff\x7f", "string of"),
        (b"\x80\x02cposix\nsystem\n", "could run code"),
        (b"\x80\x02\x93", "instruction 0x93"),
        (b"\x80\x02" + b"N0" * 10, "instruction"),
        (b"\x80\x02](" + b"h\0" * 10 + b".", "well-formed"),
        (b"\x80\x02c" + b"a" * 1000, "too long"),
        (b"\x80\x02}(K\x01K\x02K\x01K\x03u.", "twice"),
        (b"\x80\x02}(]Nu.", "keys are not names"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "torch.save does not"),
        (b"\x80\x02\x8a\xff" + b"\1" * 255, "too large"),
        (b"\x80\x02]q\0h\0a.", "more than it could hold"),
    ],
)
def test_a_pickle_beyond_a_dictionary_of_tensors_is_refused(tmp_path, pickled, fault):
    assert fault in refusal(write(tmp_path, pickled))


def test_a_pickle_that_multiplies_itself_is_refused(tmp_path):
    # Each list holds the one before twice: walked naively it would be 2**60 long.
    levels = b"".join(b"](h%ch%ceq%c0" % (n, n, n + 1) for n in range(60))
    doubling = b"\x80\x02(]q\0" + levels.replace(b"0]", b"]").removesuffix(b"0") + b"t."
    assert "more than" in refusal(write(tmp_path, doubling))


def test_endless_instructions_are_refused(monkeypatch):
    monkeypatch.setattr(opcodes, "MAX_OPERATIONS", 1000)
    with pytest.raises(opcodes.Refused, match="instructions"):
        opcodes.run(b"\x80\x02" + b"N" * 2000 + b".")


def test_only_stored_plain_unambiguous_archives_are_read(tmp_path):
    good = state({"a": GOOD})
    assert "compressed" in refusal(write(tmp_path, good, compression=zipfile.ZIP_DEFLATED))
    with pytest.warns(UserWarning, match="Duplicate name"):
        write(tmp_path, good, [("0", bytes(16)), ("0", bytes(16))])
    assert "twice" in refusal(tmp_path)
    data = bytearray(write(tmp_path, good).joinpath(NAME).read_bytes())
    for spoil, fault in (
        (lambda d: d[:-1], "cut off"),
        (lambda d: d + b"x", "something follows"),
        (lambda d: d[:40], "cut off"),
        (lambda d: d.replace(b"c/data/0", b"c/data/1", 1), "another name"),
        (lambda d: d.replace(b"PK\1\2", b"PK\1\3", 1), "well-formed"),
        (lambda d: flag_encrypted(d), "encrypted"),
    ):
        (tmp_path / NAME).write_bytes(spoil(bytearray(data)))
        assert fault in refusal(tmp_path)


def flag_encrypted(data):
    data[data.index(b"PK\1\2") + 8] |= 1
    return data


def test_two_entries_that_share_bytes_are_refused(tmp_path):
    write(tmp_path, state({"a": GOOD}), [("0", bytes(16)), ("1", bytes(16))])
    data = bytearray((tmp_path / NAME).read_bytes())
    first = data.index(b"PK\3\4", 10)
    last = data.rindex(b"PK\1\2")
    struct.pack_into("<L", data, last + 42, first)
    data[last + 46 : last + 54] = b"c/data/0"
    (tmp_path / NAME).write_bytes(data)
    assert refusal(tmp_path)


def test_a_legacy_file_cut_off_or_longer_is_refused(tmp_path):
    torch.save({"a": torch.ones(4)}, tmp_path / NAME, _use_new_zipfile_serialization=False)
    data = (tmp_path / NAME).read_bytes()
    for spoiled in (data[:-1], data + b"x", data[:100]):
        (tmp_path / NAME).write_bytes(spoiled)
        assert refusal(tmp_path)


def test_our_opcodes_are_those_that_torch_writes(tmp_path):
    torch.save(some_tensors(), tmp_path / NAME)
    with zipfile.ZipFile(tmp_path / NAME) as archive:
        pickled = archive.read("consolidated.00/data.pkl")
    used = {ord(code.code) for code, _, _ in pickletools.genops(pickled)} - {ord(".")}
    assert used <= set(opcodes._STEPS)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_spoiled_file_ends_in_tensors_or_one_sentence(tmp_path, changes):
    path = tmp_path / NAME
    whole_file = tmp_path / "good.pth"
    if not whole_file.exists():
        torch.save({"a": torch.ones(4, 4), "b": {"c": torch.zeros(3).half()}}, whole_file)
    data = bytearray(whole_file.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        read_tensors(tmp_path, NAME)
    except ReadError as error:
        assert "\n" not in str(error)
