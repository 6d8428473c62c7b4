"""Bencoding: what libtorrent writes is read alike; what is not standard is refused in a sentence."""

import time

import libtorrent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier import bencode
from verifier.errors import TorrentError

bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)
VALUES = st.recursive(
    NUMBERS | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=9), inner, max_size=5)
    ),
    max_leaves=15,
)
TOPS = st.dictionaries(st.binary(max_size=9), VALUES, max_size=5)


@bounded
@given(TOPS)
def test_what_libtorrent_writes_is_read_and_written_alike(value):
    data = libtorrent.bencode(value)
    document = bencode.decode(data, "It")
    assert document.fields == value
    assert document.canonical
    assert bencode.encode(dict(document.fields)) == data


@bounded
@given(TOPS, VALUES)
def test_the_bytes_of_info_are_kept_as_they_were_written(value, info):
    data = libtorrent.bencode(value | {b"info": info})
    raw = bencode.decode(data, "It").raw
    assert raw == libtorrent.bencode(info)


@bounded
@given(st.binary(max_size=200) | TOPS.map(libtorrent.bencode))
def test_any_bytes_are_read_or_refused_in_one_sentence(data):
    try:
        bencode.decode(data, "It")
    except TorrentError as error:
        assert str(error).startswith("It ")
        assert "\n" not in str(error)


@bounded
@given(TOPS, st.data())
def test_an_honest_text_with_a_changed_byte_is_read_or_refused(value, data):
    text = bytearray(libtorrent.bencode(value))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    try:
        document = bencode.decode(bytes(text), "It")
    except TorrentError:
        return
    if document.canonical:
        assert bencode.encode(dict(document.fields)) == bytes(text)


REFUSED = {
    "nothing": b"",
    "no dictionary": b"le",
    "minus zero": b"d1:ai-0ee",
    "leading zero": b"d1:ai03ee",
    "leading zero after minus": b"d1:ai-03ee",
    "plus": b"d1:ai+3ee",
    "space": b"d1:ai 3ee",
    "underscore": b"d1:ai1_0ee",
    "letters": b"d1:aixee",
    "no digits": b"d1:aiee",
    "only minus": b"d1:ai-ee",
    "other digits": "d1:ai٣ee".encode(),
    "integer of 20 digits": b"d1:ai%dee" % 10**19,
    "integer over 63 bits": b"d1:ai%dee" % 2**63,
    "integer without end": b"d1:ai" + b"9" * 1000,
    "integer at the end": b"d1:ai5",
    "length with leading zero": b"d01:a1:be",
    "length below zero": b"d1:a-1:be",
    "length of 100 MB": b"d1:a100000000:be",
    "length of 19 digits": b"d1:a9999999999999999999:be",
    "text without colon": b"d1:a5",
    "repeated key": b"d1:ai1e1:ai2ee",
    "repeated key far apart": b"d1:ai1e1:bi1e1:ai2ee",
    "number as key": b"di1ei2ee",
    "key without value": b"d1:ae",
    "dictionary without end": b"d1:ai1e",
    "list without end": b"d1:ali1e",
    "bytes behind the end": b"d1:ai1ee\n",
    "lists in lists": b"d1:a" + b"l" * 100_000 + b"e" * 100_000 + b"e",
    "dictionaries in dictionaries": b"d1:a" * 100_000 + b"i1e" + b"e" * 100_000,
    "only opening": b"d1:a" + b"l" * 100_000,
    "many values": b"d1:al" + b"le" * (bencode.MAX_VALUES + 1) + b"ee",
    "many keys": b"d" + b"".join(b"6:%06di1e" % n for n in range(bencode.MAX_VALUES + 1)) + b"e",
    "too large": b"d" + bytes(bencode.MAX_BYTES),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_standard_is_refused_at_once(name):
    started = time.perf_counter()
    with pytest.raises(TorrentError, match=r"^It .*\.$"):
        bencode.decode(REFUSED[name], "It")
    assert time.perf_counter() - started < 5  # under a second on a quiet machine


def test_keys_out_of_order_are_read_and_noted():
    document = bencode.decode(b"d1:bi1e1:ai2ee", "It")
    assert document.fields == {b"a": 2, b"b": 1}
    assert not document.canonical
