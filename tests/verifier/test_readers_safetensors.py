"""Safetensors headers: read as the library reads them, refused where they lie."""

import json
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from verifier.readers import ReadError, is_weight_file, read_tensors

NAME = "model.safetensors"
F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(folder, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = struct.pack("<Q", len(text) if length is None else length)
    (folder / NAME).write_bytes(start + text + data)
    return folder


def refusal(folder, path=NAME):
    with pytest.raises(ReadError) as caught:
        read_tensors(folder, path)
    assert "\n" not in str(caught.value)
    assert caught.value.path == path
    return caught.value.message


def test_every_tensor_lies_where_the_library_finds_it(tmp_path):
    save_file(
        {
            "a": torch.randn(3, 5),
            "b": torch.randn(7).half(),
            "c": torch.randn(2, 2).bfloat16(),
            "d": torch.arange(3),
            "e": torch.zeros(0, 4),
            "f": torch.tensor(2.5),
        },
        tmp_path / NAME,
        {"format": "pt"},
    )
    data = (tmp_path / NAME).read_bytes()
    expected = load_file(tmp_path / NAME)
    entries = read_tensors(tmp_path, NAME)
    assert {entry.name for entry in entries} == set(expected)
    for entry in entries:
        tensor = expected[entry.name]
        assert entry.shape == tuple(tensor.shape)
        raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        assert data[entry.start : entry.end] == raw


@pytest.mark.parametrize(
    ("header", "data", "length", "fault"),
    [
        ({"a": F32}, bytes(16), 2**63, "more than the format allows"),
        ({"a": F32}, bytes(16), 50_000_000, "does not fit"),
        ({"a": F32}, bytes(12), None, "cut off"),
        ({"a": F32}, bytes(20), None, "follow the last tensor"),
        ({"a": F32, "b": F32}, bytes(16), None, "overlaps"),
        ({"a": F32, "b": {**F32, "data_offsets": [20, 36]}}, bytes(36), None, "leaves a hole"),
        ({"a": {**F32, "data_offsets": [0, 8]}}, bytes(8), None, "does not fill"),
        ({"a": {**F32, "data_offsets": [16, 0]}}, bytes(16), None, "does not fill"),
        ({"a": {**F32, "data_offsets": [-16, 0]}}, b"", None, "offsets"),
        ({"a": {**F32, "shape": [2, -2]}}, bytes(16), None, "shape"),
        ({"a": {**F32, "shape": [True, 4]}}, bytes(16), None, "shape"),
        ({"a": {**F32, "shape": [2**48] * 16}}, bytes(16), None, "does not fill"),
        ({"a": {**F32, "shape": [1] * 1000}}, bytes(16), None, "shape"),
        ({"a": {**F32, "dtype": "F31"}}, bytes(16), None, "unknown type"),
        ({"a": {**F32, "extra": 1}}, bytes(16), None, "not described"),
        ({"a": 5}, b"", None, "not described"),
        ([1], b"", None, "not a JSON object"),
        (b'{"a":' + json.dumps(F32).encode() + b',"a":{}}', bytes(16), None, "repeats the key"),
        (b"[" * 100_000, b"", None, "too deep"),
        (b"\xff\xfe", b"", None, "UTF-8"),
        (b'{"a":NaN}', b"", None, "NaN"),
        (b"[" + b"[]," * 3_000_000, b"", None, "items"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, data, length, fault):
    assert fault in refusal(write(tmp_path, header, data, length))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "empty"),
        (b"abc", "too short"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid ...", "LFS"),
        (bytes(4096), "zeros"),
    ],
)
def test_what_often_lies_where_a_shard_should_be_is_named(tmp_path, data, fault):
    (tmp_path / NAME).write_bytes(data)
    assert fault in refusal(tmp_path)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "elsewhere" / NAME)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / NAME).symlink_to(tmp_path / "elsewhere" / NAME)
    (tmp_path / "copy" / "sub").symlink_to(tmp_path / "elsewhere")
    assert "link" in refusal(tmp_path / "copy")
    assert "link" in refusal(tmp_path / "copy", f"sub/{NAME}")


@pytest.mark.parametrize("path", ["../x.bin", "/etc/passwd", "a//b.bin", "a\0.bin", "./a.bin", ""])
def test_no_name_leaves_the_folder(tmp_path, path):
    assert "not a name inside" in refusal(tmp_path, path)


def test_a_pipe_and_a_folder_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / NAME)
    assert "not a regular file" in refusal(tmp_path)
    (tmp_path / "folder.bin").mkdir()
    assert "not a regular file" in refusal(tmp_path, "folder.bin")


def test_weight_files_are_known_by_suffix():
    assert is_weight_file("7B/consolidated.00.pth")
    assert is_weight_file("a/B.SAFETENSORS")
    assert not is_weight_file("tokenizer.model")
    assert not is_weight_file("config.json")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200), st.integers(0, 2**64 - 1) | st.none())
def test_any_bytes_end_in_tensors_or_one_sentence(tmp_path, text, length):
    write(tmp_path, text, b"", length)
    try:
        read_tensors(tmp_path, NAME)
    except ReadError as error:
        assert "\n" not in str(error)
