"""Parsers of manifests, lists, configs and names under any text; the report page with it."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_check import config
from inference_check.errors import NotRun
from inference_check.reference import load_reference
from verifier import dsse, keys, lists, manifest, names, oms, report_html, sketch, strict_json, walk
from verifier.errors import ManifestError, VerifierError
from verifier.findings import Code, FileStatus, Verdict

from .bundle_cases import resource, statement
from .cases import Room, bundle
from .list_cases import FILE, HEX
from .mutations import TEXTS, as_json, fuzzed, odd, spoiled, spoiled_json
from .samples import GEMMA, GGUF, HF, META, REFERENCE
from .side_cases import SEED, TENSOR

texts = st.text(max_size=40) | st.sampled_from(TEXTS)


def refused_well(error: VerifierError | NotRun) -> None:
    """One printable sentence, not too long."""
    assert names.shown(str(error)).isprintable()
    assert len(str(error)) < 600


@fuzzed
@given(st.binary(max_size=200) | odd.map(as_json) | odd.map(as_json).flatmap(spoiled))
def test_what_is_accepted_as_json_is_what_python_reads(data):
    try:
        value = strict_json.loads(data, "it")
    except ManifestError as error:
        refused_well(error)
        return
    assert json.dumps(value) == json.dumps(json.loads(data))
    json.dumps(value, ensure_ascii=False).encode()


def load(room: Room) -> manifest.Manifest | None:
    """Load the manifest of the room's copy as `verify` does."""
    try:
        loaded = manifest.load(room.copy / "model.sig", keys.load_trusted(room.signer.public))
        loaded.tensors()
    except VerifierError as error:
        refused_well(error)
        return None
    return loaded


GOOD_STATEMENT = json.loads(statement(resource("a"), resource("b/c")))


@fuzzed
@given(spoiled_json(GOOD_STATEMENT).map(as_json) | spoiled(as_json(GOOD_STATEMENT)))
def test_a_signed_statement_of_odd_values_is_read_or_refused(room, payload):
    room.sign(payload)
    loaded = load(room)
    if loaded is not None:
        for name in loaded.files:
            assert name == names.safe(name)


@fuzzed
@given(st.data())
def test_a_bundle_of_odd_values_is_refused_or_says_the_same(room, data):
    good = (room.official / "model.sig").read_bytes()
    spoil = spoiled_json(json.loads(good)).map(as_json) | spoiled(good)
    (room.copy / "model.sig").write_bytes(data.draw(spoil))
    loaded = load(room)
    if loaded is not None:
        assert loaded.name == "test/tiny@1"


@fuzzed
@given(st.data(), st.sampled_from(["checkpoint.json", "tensors.json"]))
def test_a_signed_side_file_of_odd_values_is_read_or_refused(room, data, name):
    good = json.loads((room.official / ".weighbridge" / name).read_text())
    room.put(f".weighbridge/{name}", as_json(data.draw(spoiled_json(good))))
    room.sign_again()
    load(room)


@fuzzed
@given(st.data(), st.sampled_from(["leaves.bin", "leaves.b3"]))
def test_signed_leaves_of_odd_bytes_are_refused(room, data, name):
    good = (room.official / ".weighbridge" / name).read_bytes()
    room.put(f".weighbridge/{name}", data.draw(spoiled(good)))
    room.sign_again()
    loaded = load(room)
    if loaded is not None:
        assert (room.copy / ".weighbridge" / name).read_bytes() == good


ROOT = (Path(__file__).parents[2] / "vectors" / "root" / "root.json").read_bytes()


@fuzzed
@given(spoiled_json(json.loads(ROOT)).map(as_json) | spoiled(ROOT) | st.binary(max_size=80))
def test_any_file_given_as_trusted_key_is_read_or_refused(tmp_path, data):
    (tmp_path / "root.json").write_bytes(data)
    try:
        keys.load_trusted(tmp_path / "root.json")
    except VerifierError as error:
        refused_well(error)


line = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "\\", " ", "SHA256 ("]),
    st.sampled_from([HEX, HEX[:32], HEX[:40], "f", "A" * 64, "g" * 64]),
    st.sampled_from(["  ", " *", " ", "\t", "", ") = "]),
    texts | st.just(HEX),
)
SUMS = f"{HEX}  a\n\\{HEX}  b\\nc\nSHA256 (d) = {HEX}\n".encode()


def load_list(folder: Path, data: bytes) -> None:
    """Load a list; each name must be inside the folder, each digest hex."""
    (folder / "SUMS").write_bytes(data)
    try:
        loaded = lists.load(folder / "SUMS")
    except ManifestError as error:
        refused_well(error)
        return
    for name, entry in loaded.files.items():
        assert name == names.safe(name)
        assert bytes.fromhex(entry.whole)


@fuzzed
@given(st.lists(line, max_size=5).map("\n".join) | spoiled(SUMS).map(lambda b: b.decode("latin-1")))
def test_any_lines_are_a_list_or_refused(tmp_path, text):
    load_list(tmp_path, text.encode("utf-8", "surrogatepass"))


@fuzzed
@given(
    spoiled_json([FILE, FILE | {"path": "b", "lfs": {"oid": HEX, "size": 1}}]).map(as_json)
    | spoiled(as_json([FILE]))
)
def test_any_tree_listing_is_read_or_refused(tmp_path, data):
    load_list(tmp_path, data)


@fuzzed
@given(texts)
def test_a_name_stays_inside_the_folder_and_on_one_line_or_is_refused(tmp_path, name):
    assert names.shown(name).isprintable()
    names.shown(name).encode()
    try:
        safe = names.safe(name)
    except ManifestError as error:
        refused_well(error)
        return
    assert names.safe(safe) == safe
    assert (tmp_path / safe).resolve(strict=False).is_relative_to(tmp_path)
    with contextlib.suppress(ManifestError):
        names.check_portable([safe])
        assert not set("\\:\0") & set(safe)


@fuzzed
@given(st.lists(texts, max_size=5))
def test_names_that_pass_as_portable_are_different_files_everywhere(listed):
    try:
        names.check_portable(listed)
    except ManifestError as error:
        refused_well(error)
        return
    assert len({name.casefold() for name in listed}) == len(listed)


@fuzzed
@given(st.sets(st.binary(min_size=1, max_size=12), max_size=8))
def test_a_folder_of_any_names_is_listed(tmp_path, raw):
    root = tmp_path / "root"
    root.mkdir()
    made = set()
    for name in raw - {b".", b".."}:
        if b"\0" not in name and b"/" not in name:
            (root / os.fsdecode(name)).touch()
            made.add(name)
    listing = walk.walk(root)
    assert len(listing.files) + len(listing.findings) == len(made)
    for finding in listing.findings:
        assert finding.code is Code.BAD_NAME
        assert finding.message.isprintable()
    for name in made:
        (root / os.fsdecode(name)).unlink()
    root.rmdir()


def understand(read, value):
    """Understand a config; what comes out must be small enough to compute with."""
    try:
        found = read(value)
    except NotRun as reason:
        refused_well(reason)
        return
    assert 1 <= found.layers <= config.MAX_LAYERS
    assert 1 <= found.heads * found.head_width <= config.MAX_WIDTH
    assert found.heads % found.kv_heads == 0
    assert found.head_width % 2 == 0
    assert 0 <= found.norm_eps < 1
    assert 1 <= found.rope_base < float("inf")


@fuzzed
@given((spoiled_json(HF) | spoiled_json(GEMMA)).filter(lambda value: isinstance(value, dict)))
def test_a_config_of_odd_values_is_understood_or_refused(value):
    understand(config.from_hugging_face, value)


@fuzzed
@given(spoiled_json(META).filter(lambda value: isinstance(value, dict)))
def test_params_of_odd_values_are_understood_or_refused(value):
    understand(config.from_meta, value)


@fuzzed
@given(
    spoiled_json(GGUF).filter(lambda value: isinstance(value, dict)),
    st.lists(st.floats(), max_size=9).map(tuple) | st.just((1.0,) * 8),
)
def test_metadata_of_odd_values_is_understood_or_refused(value, factors):
    understand(lambda metadata: config.from_gguf(metadata, factors), value)


@fuzzed
@given(odd.map(as_json) | spoiled(as_json(HF)) | spoiled(as_json(META)))
def test_a_config_file_of_odd_bytes_is_understood_or_refused(tmp_path, data):
    for name in ("config.json", "params.json"):
        (tmp_path / name).write_bytes(data)
    with contextlib.suppress(NotRun):
        config.find_config(tmp_path, "", None)


@fuzzed
@given(spoiled_json(REFERENCE).map(as_json) | spoiled(as_json(REFERENCE)))
def test_a_reference_of_odd_values_is_read_or_refused(tmp_path, data):
    (tmp_path / "reference.json").write_bytes(data)
    try:
        load_reference(tmp_path / "reference.json")
    except NotRun as reason:
        refused_well(reason)


@fuzzed
@given(spoiled_json({"schema": 1, "seed": SEED, "tensors": {"a": TENSOR}}))
def test_a_sketch_of_odd_values_is_read_or_refused(value):
    if not isinstance(value, dict):
        return
    try:
        found = sketch.load(value, "a")
    except ManifestError as error:
        refused_well(error)
        return
    if found is not None:
        assert len(found.simhash) == sketch.BITS // 8
        assert len(found.samples) <= 4 * sketch.SAMPLES


class Tags(HTMLParser):
    """Counts tags and attributes, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found[tag] += 1
        self.found.update(f"{tag} {name}" for name, _ in attributes)

    def handle_comment(self, data):
        self.found["comment"] += 1

    def handle_pi(self, data):
        self.found["instruction"] += 1


def hostile_report(text: str) -> dict[str, object]:
    """A report with ``text`` in every place that a copy or a manifest can fill."""
    return {
        "verdict": Verdict.DAMAGED.value,
        "checkpoint": text,
        "path": text,
        "sentence": text,
        "accepted": False,
        "findings": [{"code": "damaged", "path": text, "message": text, "ranges": [[0, 1]]}],
        "files": [
            {"path": text, "status": status.value, "size": 5, "ranges": [[0, 1]]}
            for status in FileStatus
        ],
        "weights": {
            "status": "compared",
            "verdict": "unrelated",
            "counts": {"exact": 1, "changed": 2},
            "tensors": [{"name": text, "status": "changed", "statistics": {"shape": [text]}}],
        },
        "inference": {
            "status": "disagrees",
            "reason": text,
            "device": text,
            "dtype": text,
            "statistics": {text: text},
            "thresholds": {text: 1.0},
        },
        "manifest": {"signed_by": text or "k", "revision": 1, "issued": text, "digest": text},
    }


MARKUP = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onload='x", "</style>"]
MARKUP += ["<!--", "-->", "]]>", "&lt;", "{title}", "{{ 7*7 }}", "</svg><a href=javascript:1>"]
PLAIN = Tags(report_html.render(hostile_report("plain"))).found


@fuzzed
@given(
    st.sampled_from(MARKUP) | st.text(alphabet="<>&\"'/=!-{}% ax\n\0\x1b\u202e\ud800", min_size=1)
)
def test_no_name_becomes_markup_on_the_report_page(text):
    page = report_html.render(hostile_report(text))
    assert Tags(page).found == PLAIN
    assert not {"script", "comment", "instruction"} & set(PLAIN)
    assert "\u202e" not in page
    page.encode()


@pytest.mark.parametrize("markup", MARKUP)
def test_the_part_for_other_pages_is_escaped_too(markup):
    plain = Tags(report_html.fragment(hostile_report("plain"))).found
    assert Tags(report_html.fragment(hostile_report(markup))).found == plain


@fuzzed
@given(st.binary(max_size=40) | st.text(alphabet="'\"\\a\n").map(str.encode), st.integers(1, 5))
def test_what_0_2_0_signed_is_written_in_pieces_as_python_prints_bytes(payload, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dsse, "_PIECE", piece)
        written = b"".join(dsse.pae_0_2_0(payload))
    kind = dsse.PAYLOAD_TYPE
    assert written == f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode()


def test_a_bundle_made_by_hand_is_the_one_that_we_sign(room):
    payload = statement(resource("a", hashlib.sha256(b"").hexdigest()))
    signature = dsse.sign(payload, room.signer.key)
    found = oms.verify(bundle(payload, signature), keys.load_trusted(room.signer.public))
    assert [r.name for r in found.resources] == ["a"]
