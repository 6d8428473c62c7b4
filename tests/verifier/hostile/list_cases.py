"""Other people's lists: checksums in every style, and Hugging Face tree listings."""

import hashlib
import json
import os
from typing import Any

from .cases import MIB, SHARD, Case, Make, Room, table

HEX = "0" * 64
FILE = {"type": "file", "path": "a", "size": 1, "oid": "0" * 40}


def given(text: Any) -> Make:
    """The list lies beside the copy."""

    def make(room: Room) -> list[object]:
        value = text() if callable(text) else text
        return ["--manifest", room.give("SUMS", value)]

    return make


def tree(entries: Any) -> Make:
    """The tree listing lies beside the copy."""
    return given(lambda: json.dumps(entries() if callable(entries) else entries))


LISTS = {
    "empty": ("", "lists no file"),
    "only spaces": (" \n\n", "lists no file"),
    "only a comment": ("# nothing\n", "lists no file"),
    "a digest and no name": (HEX, "neither a digest"),
    "a name and no digest": ("  a", "neither a digest"),
    "a digest of 65 digits": (f"{HEX}0  a", "unknown length"),
    "a digest of 8 digits (CRC-32)": ("00000000  a", "unknown length"),
    "a digest of a mebibyte": ("0" * MIB + "  a", "unknown length"),
    "a folder above": (f"{HEX}  ../a", "not a name inside"),
    "an escaped folder above": (f"\\{HEX}  ..\\\\/../a", "not a name inside"),
    "an absolute name": (f"{HEX}  /etc/passwd", "not a name inside"),
    "NUL in a name": (f"{HEX}  a\0b", "not a name inside"),
    "a name of 300 letters": (f"{HEX}  {'a' * 300}", "too long"),
    "a name of 8 MiB of escapes": (lambda: f"{HEX}  " + "\x1b" * 8 * MIB, "too long"),
    "a name of 600 folders": (f"{HEX}  {'a/' * 600}a", "too long"),
    "a name twice": (f"{HEX}  a\n{HEX}  ./a", "twice"),
    "a name twice in two styles": (f"{HEX}  a\nSHA256 (a) = {HEX}", "twice"),
    "a tag that lies": (f"MD5 (a) = {HEX}", "unknown length"),
    "a tag of no algorithm": (f"SHA3 (a) = {HEX}", "neither a digest"),
    "a tag of 16 MiB of brackets": (
        lambda: "SHA256 (" + "(" * 15 * MIB,
        "neither a digest",
    ),
    "a tag that ends often": (
        lambda: "SHA256 (" + ") = 0" * (3 * MIB),
        "neither a digest|unknown length",
    ),
    "a digest that never ends": (lambda: "0" * 15 * MIB, "neither a digest"),
    "15 MiB of spaces": (lambda: "0" * 64 + " " * 15 * MIB, "too long|not a name|neither"),
    "15 MiB of backslashes": (lambda: f"\\{HEX}  " + "\\" * 15 * MIB, "too long"),
    "a byte order mark": (f"\ufeff{HEX}  a", "neither a digest"),
    "UTF-16": (f"{HEX}  a\n".encode("utf-16"), "UTF-8"),
    "Latin-1": (f"{HEX}  \xe9\n".encode("latin-1"), "UTF-8"),
    "half a surrogate pair": (f"{HEX}  \ud800\n", "UTF-8"),
    "prose": ("hello world\n", "neither a digest"),
    "a web page": ("<!DOCTYPE html><html></html>", "neither a digest"),
    "a script": ("#!/bin/sh\ntouch executed\n", "neither a digest"),
    "four million lines": (lambda: "\n" * 4_000_000 + "x", "neither a digest"),
    "100,001 files": (
        lambda: "".join(f"{HEX}  {n:x}\n" for n in range(100_001)),
        "more than 100,000",
    ),
    "17 MiB": (lambda: f"{HEX}  a\n" * (MIB // 4), "larger than 16 MiB|twice"),
    "a signature of OpenPGP": ("-----BEGIN PGP SIGNED MESSAGE-----\n", "neither a digest"),
    "random bytes": (hashlib.shake_256(b"1").digest(10_000), "UTF-8"),
}

TREES = {
    "empty": ([], "lists no file"),
    "a number": ([1], "neither file nor directory"),
    "a list in the list": ([[]], "neither file nor directory"),
    "null": ([None], "neither file nor directory"),
    "an entry without a type": ([{"path": "a"}], "neither file nor directory"),
    "a type that is a list": ([FILE | {"type": ["file"]}], "neither file nor directory"),
    "a submodule": ([FILE | {"type": "submodule"}], "neither file nor directory"),
    "no path": ([{"type": "file", "size": 1, "oid": "0" * 40}], "without a name"),
    "a path that is a number": ([FILE | {"path": 1}], "without a name"),
    "an absolute path": ([FILE | {"path": "/a"}], "not a name inside"),
    "a folder above": ([FILE | {"path": "a/../../b"}], "not a name inside"),
    "NUL in a path": ([FILE | {"path": "a\0"}], "not a name inside"),
    "half a surrogate pair": ([FILE | {"path": "\udc80"}], "surrogate"),
    "a path of 8 MiB": (lambda: [FILE | {"path": "a" * 8 * MIB}], "too long"),
    "a size of -1": ([FILE | {"size": -1}], "no size"),
    "a size of 2^63": ([FILE | {"size": 2**63}], "no size"),
    "a size that is true": ([FILE | {"size": True}], "no size"),
    "a size as float": ([FILE | {"size": 1.0}], "no size"),
    "no size": ([{"type": "file", "path": "a", "oid": "0" * 40}], "no size"),
    "no digest": ([FILE | {"oid": None}], "no digest"),
    "a digest in capitals": ([FILE | {"oid": "A" * 40}], "no digest"),
    "a digest with a newline": ([FILE | {"oid": "0" * 40 + "\n"}], "no digest"),
    "a pointer without a digest": ([FILE | {"lfs": {}}], "no digest"),
    "a pointer of 40 digits": ([FILE | {"lfs": {"oid": "0" * 40}}], "no digest"),
    "a path twice": ([FILE, FILE], "twice"),
    "100,001 files": (
        lambda: [FILE | {"path": str(n)} for n in range(100_001)],
        "more than 100,000|items|larger",
    ),
}

TEXTS = {
    "an open bracket": ("[", "not JSON"),
    "nested 10^5 deep": ("[" * 100_000, "too deep"),
    "a key twice": ('[{"type":"file","type":"file"}]', "repeats the key"),
    "NaN": ("[NaN]", "NaN"),
    "a size of 10^5 digits": (
        '[{"type":"file","path":"a","size":' + "9" * 100_000 + "}]",
        "digits",
    ),
    "a page cut off": (json.dumps([FILE, FILE])[:-20], "not JSON"),
    "two pages": ("[][]", "not JSON"),
    "four million entries": (lambda: "[" + "{}," * 4_000_000 + "{}]", "items"),
}


def special(kind: str) -> Make:
    def make(room: Room) -> list[object]:
        path = room.aside / "SUMS"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        elif kind == "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        return ["--manifest", path]

    return make


SPECIAL = {
    "that is not there": ("none", "cannot be read"),
    "that is a pipe": ("pipe", "not a regular file"),
    "that is a folder": ("folder", "not a regular file"),
    "that is a link to itself": ("loop", "cannot be read"),
    "that is an endless device": ("zero", "not a regular file"),
    "that is a sparse tebibyte": ("sparse", "larger than"),
}


def hardly(name: str, digest: str) -> Make:
    """A list of names that look like others, whose files are not there."""
    return given(f"{digest}  {name}\n")


MISSING = {
    "a name that turns around": (("\u202egnp.exe", HEX), r"\\u202e"),
    "a name of spaces": (("   ", HEX), "missing"),
    "a name with an escape sequence": (("a\x1b[2J", HEX), r"\\x1b"),
    "a name that ends in a dot": (("a.", "0" * 32), "missing"),
    "a device of another system": (("CON", "0" * 40), "missing"),
}


def sparse_copy(room: Room) -> list[object]:
    """A listed file is a sparse tebibyte; the listing says its size."""
    with (room.copy / SHARD).open("r+b") as file:
        file.truncate(1 << 40)
    large = {"type": "file", "path": SHARD, "size": 5, "oid": "0" * 40, "lfs": {"oid": HEX}}
    return ["--manifest", room.give("tree.json", json.dumps([large]))]


CASES = [
    *table("list", LISTS, given, status=2, key=False),
    *table("tree", TREES, tree, status=2, key=False),
    *table("tree text", TEXTS, given, status=2, key=False),
    *table("list", SPECIAL, special, status=2, key=False),
    *table("list of", MISSING, lambda pair: hardly(*pair), code="missing", key=False),
    Case("tree: of a sparse tebibyte", sparse_copy, "differs", "damaged", key=False),
]
