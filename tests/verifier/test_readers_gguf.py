"""GGUF files: read as the ``gguf`` package reads them, refused where they lie."""

import struct
import time

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_check.synthetic import Shape, make_weights
from tests.verifier.gguf_files import K_QUANTS, LEGACY, quantized, write_gguf
from verifier import blocks, gguf_blocks, layouts
from verifier.readers import QUANTIZED, ReadError, open_source, read_gguf_metadata, read_tensors
from verifier.readers import gguf as reader

NAME = "model.gguf"
SHAPE = Shape(layers=1, width=256, heads=4, kv_heads=2, hidden=512, vocab=64)


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def info(name="a", sizes=(4,), kind=0, offset=0, rank=None):
    rank = len(sizes) if rank is None else rank
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", rank, *sizes, kind, offset)


def build(pairs=(), infos=(), data=b"", *, version=3, tensors=None, count=None, alignment=32):
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(infos) if tensors is None else tensors,
        len(pairs) if count is None else count,
    )
    head += b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data


def refusal(folder, content):
    (folder / NAME).write_bytes(content)
    with pytest.raises(ReadError) as caught:
        read_tensors(folder, NAME)
    assert "\n" not in str(caught.value)
    return caught.value.message


def header_of(folder):
    with open_source(folder, NAME) as source:
        return reader.read_header(source)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", *LEGACY, *K_QUANTS])
def test_every_tensor_lies_where_the_package_finds_it(tmp_path, dtype):
    write_gguf(tmp_path / NAME, make_weights(SHAPE), SHAPE, dtype)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / NAME).tensors}
    entries = read_tensors(tmp_path, NAME)
    assert {entry.name for entry in entries} == theirs.keys()
    for entry in entries:
        tensor = theirs[entry.name]
        assert entry.dtype == tensor.tensor_type.name
        assert entry.shape == tuple(reversed(tensor.shape.tolist()))
        assert (entry.start, entry.end - entry.start) == (tensor.data_offset, tensor.n_bytes)


def test_values_are_those_that_the_package_decodes(tmp_path, monkeypatch):
    others = dict(zip(("attn_q", "attn_k", "ffn_up", "ffn_down"), K_QUANTS, strict=False))
    others = {f"blk.0.{name}.weight": dtype for name, dtype in others.items()}
    write_gguf(tmp_path / NAME, make_weights(SHAPE), SHAPE, "Q5_1", others=others)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / NAME).tensors}
    monkeypatch.setattr(blocks, "BLOCK", 4096)
    for entry in read_tensors(tmp_path, NAME):
        tensor = layouts.LogicalTensor(
            entry.name, "", entry.dtype, entry.shape, (layouts.Part(entry),)
        )
        with blocks.Files(tmp_path, [NAME]) as files:
            pieces = list(blocks.stream(files, tensor))
        assert max(map(len, pieces)) <= 1024
        expected = gguf.dequantize(theirs[entry.name].data, theirs[entry.name].tensor_type)
        assert torch.equal(torch.cat(pieces).float(), torch.from_numpy(expected.reshape(-1).copy()))


@settings(max_examples=40, deadline=None)
@given(dtype=st.sampled_from([*LEGACY, *K_QUANTS]), count=st.integers(1, 9), data=st.data())
def test_any_blocks_decode_to_the_same_bits_as_the_package_s(dtype, count, data):
    """Random bytes are scales of every kind: infinite, not a number, subnormal, negative."""
    size = QUANTIZED[dtype][1]
    raw = data.draw(st.binary(min_size=count * size, max_size=count * size))
    with np.errstate(all="ignore"):
        rows = np.frombuffer(raw, np.uint8).reshape(count, size)
        expected = gguf.quants.dequantize(rows, Type[dtype])
    found = gguf_blocks.decode(dtype, raw)
    assert np.array_equal(found.view(np.uint32), expected.reshape(-1).view(np.uint32))


@pytest.mark.parametrize("scale", [0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x8000, 0x0001, 0x7BFF])
@pytest.mark.parametrize("dtype", [*LEGACY, *K_QUANTS])
def test_odd_scales_decode_as_the_package_decodes_them(dtype, scale):
    rows = np.random.default_rng(1).integers(0, 256, (8, QUANTIZED[dtype][1]), np.uint8)
    for place in (0, 2, 80, 82, 108, 208):
        if place + 2 <= rows.shape[1]:
            rows[:, place : place + 2] = (scale & 255, scale >> 8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(rows, Type[dtype]).reshape(-1)
    found = gguf_blocks.decode(dtype, rows)
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("dtype", [*LEGACY, *K_QUANTS])
def test_no_level_lies_outside_the_levels_of_its_type(dtype):
    rows = np.random.default_rng(2).integers(0, 256, (64, QUANTIZED[dtype][1]), np.uint8)
    unpacked = gguf_blocks.unpack(dtype, rows)
    assert unpacked.levels.min() == unpacked.lowest
    assert unpacked.levels.max() == unpacked.highest


def test_the_table_of_types_is_that_of_the_package():
    assert {kind.value: kind.name for kind in Type} == reader.TYPES
    for kind, size in gguf.GGML_QUANT_SIZES.items():
        if size[0] > 1:
            assert QUANTIZED[kind.name] == size


def test_metadata_keeps_numbers_and_short_texts_and_passes_over_the_rest(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / NAME, "llama")
    writer.add_uint32("llama.block_count", 7)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_array("tokenizer.ggml.tokens", [f"token {n}" for n in range(30_000)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 30_000)
    writer.add_string("tokenizer.chat_template", "x" * 300_000)
    writer.add_uint64("last", 2**63)
    writer.add_tensor("a", np.ones((2, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (entry,) = read_tensors(tmp_path, NAME)
    assert entry.shape == (2, 4)
    assert read_gguf_metadata(tmp_path, NAME) == {
        "general.architecture": "llama",
        "llama.block_count": 7,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.add_bos_token": True,
        "last": 2**63,
    }


def test_version_2_nested_arrays_and_other_alignments_are_read(tmp_path):
    nested = struct.pack("<IQ", 9, 2) + 2 * (struct.pack("<IQ", 8, 2) + text("x") + text(""))
    pairs = [pair("nested", 9, nested), pair("general.alignment", 4, struct.pack("<I", 128))]
    infos = [info("a", (3, 2), 0, 0), info("b", (), 1, 128)]
    data = bytes(24) + bytes(104) + bytes(2)
    (tmp_path / NAME).write_bytes(build(pairs, infos, data, version=2, alignment=128))
    header = header_of(tmp_path)
    assert [(entry.name, entry.shape) for entry in header.tensors] == [("a", (2, 3)), ("b", ())]
    assert header.metadata == {"general.alignment": 128}


def test_a_vocabulary_alone_has_no_tensors(tmp_path):
    (tmp_path / NAME).write_bytes(build([pair("a", 7, b"\1")]))
    assert read_tensors(tmp_path, NAME) == []


NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(8)) + struct.pack("<IQ", 0, 0)
U32 = struct.pack("<I", 0)
HOSTILE = {
    "version": (build(version=4), "version 4"),
    "version 1": (build(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "no version": (b"GGUF", "cut off"),
    "no counts": (b"GGUF\3\0\0\0\1", "cut off"),
    "billion tensors": (build(tensors=10**9), "more than 100,000 tensors"),
    "all tensors": (build(tensors=2**64 - 1), "more than 100,000 tensors"),
    "promised tensors": (build(tensors=100_000), "more than it can hold"),
    "billion pairs": (build(count=10**9), "pairs of metadata"),
    "promised pairs": (build(count=10_000), "more than it can hold"),
    "long key": (build([text("k" * 2000) + U32]), "too long"),
    "endless key": (build([struct.pack("<Q", 2**64 - 1)]), "too long"),
    "key no text": (build([pair(b"\xff", 7, b"\0")]), "UTF-8"),
    "key twice": (build([pair("a", 7, b"\0"), pair("a", 7, b"\0")]), "repeats the key"),
    "unknown value": (build([pair("a", 13, b"\0")]), "unknown type 13"),
    "unknown item": (build([pair("a", 9, struct.pack("<IQ", 99, 1))]), "array of the unknown"),
    "endless numbers": (build([pair("a", 9, struct.pack("<IQ", 0, 2**63))]), "more than the file"),
    "many numbers": (build([pair("a", 9, struct.pack("<IQ", 12, 10**8))]), "more than the file"),
    "endless texts": (build([pair("a", 9, struct.pack("<IQ", 8, 2**63))]), "items"),
    "promised texts": (build([pair("a", 9, struct.pack("<IQ", 8, 10**6))]), "cut off"),
    "long text": (build([pair("a", 8, struct.pack("<Q", 10**12))]), "more than the file"),
    "long item": (
        build([pair("a", 9, struct.pack("<IQQ", 8, 1, 2**63))]),
        "a text of 9,223,372,036,854,775,808 bytes",
    ),
    "deep": (build([pair("a", 9, NESTED)]), "deep"),
    "many arrays": (build([pair("a", 9, struct.pack("<IQ", 9, 2**40))]), "items"),
    "alignment 0": (build([pair("general.alignment", 4, U32)]), "power of two"),
    "alignment 24": (build([pair("general.alignment", 4, struct.pack("<I", 24))]), "power of two"),
    "alignment huge": (
        build([pair("general.alignment", 4, struct.pack("<I", 1 << 31))]),
        "power of two",
    ),
    "alignment text": (build([pair("general.alignment", 8, text("32"))]), "power of two"),
    "no name": (build(infos=[info("")]), "no name"),
    "long name": (build(infos=[info("n" * 300)]), "too long"),
    "name no text": (build(infos=[info(b"\xff")]), "UTF-8"),
    "rank": (build(infos=[info(rank=5)]), "5 dimensions"),
    "endless rank": (build(infos=[info(rank=2**32 - 1)]), "dimensions"),
    "size": (build(infos=[info(sizes=(2**63, 2))]), "size or offset"),
    "sizes": (build(infos=[info(sizes=(2**47,) * 4)]), "no tensor can have"),
    "offset": (build(infos=[info(offset=2**64 - 32)]), "size or offset"),
    "not aligned": (build(infos=[info(offset=4)], data=bytes(64)), "not aligned"),
    "type": (build(infos=[info(kind=99)]), "unknown type 99"),
    "removed type": (build(infos=[info(kind=4)]), "unknown type 4"),
    "broken blocks": (build(infos=[info(sizes=(33,), kind=2)]), "not made of Q4_0 blocks"),
    "row of blocks": (build(infos=[info(sizes=(16, 4), kind=2)]), "not made of Q4_0 blocks"),
    "scalar of blocks": (build(infos=[info(sizes=(), kind=2)]), "not made of Q4_0 blocks"),
    "twice": (build(infos=[info(), info(offset=32)], data=bytes(48)), "twice"),
    "overlap": (build(infos=[info(sizes=(32,)), info("b", offset=32)], data=bytes(128)), "overlap"),
    "same place": (build(infos=[info(), info("b")], data=bytes(16)), "overlap"),
    "hole": (build(infos=[info(), info("b", offset=64)], data=bytes(80)), "hole"),
    "hole at first": (build(infos=[info(offset=32)], data=bytes(64)), "hole"),
    "cut off": (build(infos=[info(sizes=(100,))], data=bytes(399)), "it is cut off"),
    "tail": (build(infos=[info()], data=bytes(33)), "1 bytes follow"),
    "layout 1": (
        build(
            [pair("general.quantization_version", 4, struct.pack("<I", 1))],
            [info(sizes=(32,), kind=2)],
            bytes(18),
        ),
        "layout 1",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_lies_is_refused_at_once(tmp_path, case):
    content, fault = HOSTILE[case]
    begun = time.monotonic()
    assert fault in refusal(tmp_path, content)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("size", range(4, 200, 7))
def test_a_file_cut_off_anywhere_is_refused(tmp_path, size):
    pairs = [pair("a", 8, text("hello")), pair("b", 9, struct.pack("<IQ", 8, 1) + text("x"))]
    whole = build(pairs, [info(sizes=(8, 4))], bytes(range(128)))
    assert len(whole) > 200
    assert "cut off" in refusal(tmp_path, whole[:size])


def test_many_tiny_texts_are_passed_over_in_a_second(tmp_path):
    count = reader.MAX_ITEMS
    (tmp_path / NAME).write_bytes(
        build([pair("a", 9, struct.pack("<IQ", 8, count) + bytes(8 * count))])
    )
    begun = time.process_time()
    assert read_tensors(tmp_path, NAME) == []
    assert time.process_time() - begun < 2


def test_a_type_that_is_not_decoded_is_said_so(tmp_path):
    content = build(infos=[info(sizes=(256,), kind=16)], data=bytes(66))
    (tmp_path / NAME).write_bytes(content)
    (entry,) = read_tensors(tmp_path, NAME)
    assert entry.dtype == "IQ2_XXS"
    with (
        blocks.Files(tmp_path, [NAME]) as files,
        pytest.raises(ReadError, match="stored as IQ2_XXS, which is not decoded here"),
    ):
        files.read(entry, 0, 256)


GOOD = build(
    [
        pair("general.architecture", 8, text("llama")),
        pair("x", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        pair("y", 9, struct.pack("<IQ", 4, 2) + bytes(8)),
    ],
    [info("a", (32, 2), 2), info("b", (4,), 0, 64)],
    bytes(64 + 16),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, len(GOOD)),
    patch=st.binary(max_size=12)
    | st.sampled_from([b"\xff" * 8, bytes(8), struct.pack("<Q", 2**48), struct.pack("<Q", 2**31)]),
    cut=st.integers(0, len(GOOD)) | st.none(),
)
def test_any_bytes_end_in_tensors_or_one_sentence(tmp_path, start, patch, cut):
    content = (GOOD[:start] + patch + GOOD[start + len(patch) :])[:cut]
    (tmp_path / NAME).write_bytes(content)
    try:
        entries = read_tensors(tmp_path, NAME)
    except ReadError as error:
        assert "\n" not in str(error)
    else:
        assert all(entry.end <= len(content) for entry in entries)


def test_k_quants_made_by_the_tests_are_near_what_they_were_made_from():
    values = np.random.default_rng(3).standard_normal((4, 512)).astype(np.float32)
    steps = {"Q2_K": 2.5, "Q3_K": 1.3, "Q4_K": 0.5, "Q5_K": 0.25, "Q6_K": 0.15}
    for dtype, step in steps.items():
        decoded = gguf.quants.dequantize(quantized(values, dtype), Type[dtype])
        assert np.abs(decoded - values).max() < step
