"""Readers of tensor files under any bytes: tensors that lie in the file, or one sentence."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from verifier import layout_names, values
from verifier.errors import ReadError
from verifier.readers import ITEM_BYTES, TensorEntry, index, opcodes, read_tensors

from .mutations import NUMBERS, TEXTS, as_json, fuzzed, odd, spoiled, spoiled_json
from .pickle_cases import legacy
from .pickles import START, numbers, state, storage, tensor, text, whole
from .safetensors_cases import file
from .zip_cases import DATA, PICKLE, zipped
from .zips import archive, zip64

ROW = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HEADER = {"__metadata__": {"format": "pt"}, "a": ROW, "b": ROW | {"data_offsets": [16, 32]}}
TWO = state(a=tensor(), b=tensor(key="1"))


def read(folder: Path, data: bytes, name: str) -> list[TensorEntry]:
    """Read ``data`` as a file; what is read must lie in it, and what is refused be one sentence."""
    (folder / name).write_bytes(data)
    try:
        entries = read_tensors(folder, name)
    except ReadError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 400
        return []
    for entry in entries:
        assert 0 <= entry.start <= entry.end <= len(data)
        assert entry.end - entry.start == entry.count * ITEM_BYTES[entry.dtype]
    assert len({entry.name for entry in entries}) == len(entries)
    return entries


@fuzzed
@given(spoiled(file(HEADER, bytes(32))))
def test_a_spoiled_safetensors_file_is_read_or_refused(tmp_path, data):
    read(tmp_path, data, "x.safetensors")


@fuzzed
@given(spoiled_json(HEADER))
def test_a_safetensors_header_of_odd_values_is_read_or_refused(tmp_path, header):
    read(tmp_path, file(as_json(header), bytes(32)), "x.safetensors")


@fuzzed
@given(st.dictionaries(st.sampled_from(TEXTS), st.lists(st.integers(0, 3), max_size=4), max_size=5))
def test_a_good_safetensors_file_is_read_whatever_its_names(tmp_path, shapes):
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    entries = read(tmp_path, file(header, bytes(at)), "x.safetensors")
    honest = all(0 < len(n) <= 4096 and "\ud800" not in n for n in shapes)
    assert len(entries) == (len(shapes) if honest else 0)


@fuzzed
@given(spoiled(archive([PICKLE, DATA])) | spoiled(zip64([PICKLE, DATA])))
def test_a_spoiled_archive_is_read_or_refused(tmp_path, data):
    read(tmp_path, data, "x.pth")


@fuzzed
@given(spoiled(TWO))
def test_a_spoiled_pickle_is_read_or_refused(tmp_path, pickled):
    read(tmp_path, zipped(pickled, bytes(16), bytes(16)), "x.pth")


@fuzzed
@given(spoiled(legacy()))
def test_a_spoiled_legacy_file_is_read_or_refused(tmp_path, data):
    read(tmp_path, data, "x.bin")


instruction = st.sampled_from(
    [bytes([code]) for code in b"}])(tQRsuaebN.\x85\x86\x87\x88\x89"]
    + [b"q\0", b"q\1", b"h\0", b"h\1", b"K\1", b"K\2", b"M\0\1", whole(4), whole(-1), text("a")]
    + [text("storage"), text("0"), text("cpu"), storage(), tensor(), numbers((2, 2)), b"J\1\0\0\0"]
    + [b"c" + module + b"\n" + name + b"\n" for module, name in opcodes._GLOBALS]
)


@fuzzed
@given(st.lists(instruction, max_size=30))
def test_any_program_of_known_instructions_describes_or_is_refused(tmp_path, program):
    pickled = START + b"".join(program) + b"."
    try:
        opcodes.run(pickled)
    except opcodes.Refused as refused:
        assert str(refused).isprintable()
    read(tmp_path, zipped(pickled), "x.pth")


@fuzzed
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "count": st.sampled_from(NUMBERS[:12]),
            "offset": st.sampled_from(NUMBERS[:12]) | st.integers(-4, 8),
            "shape": st.lists(st.integers(-1, 5), max_size=4).map(tuple),
            "stride": st.lists(st.integers(-2, 9), max_size=4).map(tuple),
        },
    )
)
def test_any_view_of_a_storage_lies_in_it_or_is_refused(tmp_path, view):
    for entry in read(tmp_path, zipped(state(a=tensor(**view))), "x.pth"):
        data = (tmp_path / "x.pth").read_bytes()
        assert data[entry.start : entry.end] == bytes(entry.end - entry.start)


@fuzzed
@given(st.binary(max_size=300))
def test_any_bytes_are_a_tensor_file_or_refused(tmp_path, data):
    for name in ("x.safetensors", "x.pth"):
        read(tmp_path, data, name)


@fuzzed
@given(spoiled_json({"metadata": {"total_size": 8}, "weight_map": {"a": "x", "b": "y"}}) | odd)
def test_an_index_of_odd_values_is_read_or_refused(tmp_path, value):
    (tmp_path / "index.json").write_bytes(as_json(value))
    try:
        placed = index.read(tmp_path, "index.json")
    except ReadError as error:
        assert str(error).isprintable()
        return
    assert all(shard and "/" not in shard and "\0" not in shard for shard in placed.values())


names = st.sampled_from(
    [line.meta for line in layout_names.LLAMA]
    + [line.canonical.replace(".N.", ".0.") for line in layout_names.LLAMA]
    + ["layers.0.attention.wq.weight", "layers.999999.x", "model.model.norm.weight", "rope.freqs"]
    + ["a", "module.a", "layers.0", "x" * 4096, "output", "<b>"]
)
shapes = st.lists(st.sampled_from([0, 1, 2, 4, 8]), max_size=3)


def write_parts(folder: Path, parts: list[dict[str, list[int]]], name: str) -> list[str]:
    """Write good files of these tensors, one per part; return their names."""
    files = []
    for number, tensors in enumerate(parts):
        header, at = {}, 0
        for tensor_name, shape in tensors.items():
            size = 2
            for length in shape:
                size *= length
            header[tensor_name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        files.append(name.format(number))
        (folder / files[-1]).write_bytes(file(header, bytes(at)))
    return files


@fuzzed
@given(
    st.lists(st.dictionaries(names, shapes, min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from(["consolidated.{:02}.pth", "model-{}.safetensors", "x{}.bin"]),
    st.sampled_from([None, 2, 4]),
)
@example([{"layers.0.attention.wq.weight": [2, 0]}], "consolidated.{:02}.pth", 2)
def test_tensors_of_any_names_and_shapes_are_compared_or_refused(tmp_path, parts, name, width):
    """The files are honest; what they hold need not be a model."""
    files = write_parts(tmp_path, parts, name)
    official = [{"name": n, "shape": s, "values": {"exact": "0" * 64}} for n, s in parts[0].items()]
    published = {"schema": 1, "head_width": width, "tensors": official}
    result = values.compare(tmp_path, files, published, None, lambda *_: None)
    assert result.tensors or result.problems or result.verdict is None
    for problem in result.problems:
        assert str(problem).isprintable()
    for path in tmp_path.iterdir():
        path.unlink()
