"""What a copy does to the other commands: `describe`, `oms verify-model`, options of `verify`."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from verifier import dsse, oms

from .bundle_cases import resource, statement
from .cases import SHARD, Case, Make, Room, bundle, table
from .folder_cases import deep, link_farm, named, special
from .safetensors_cases import F32, file


def describing(spoil: Make) -> Make:
    """The copy is to be published."""

    def make(room: Room) -> list[object]:
        spoil(room)
        return [
            "describe",
            room.copy,
            *("--name", "test/tiny@2", "--revision", "1"),
            *("--issued", "2026-01-02T03:04:05+00:00", "--out", room.folder / "data" / "work"),
        ]

    return make


def put_special(kind: str, target: str = "") -> Make:
    return lambda room: special(room.copy / "other.safetensors", kind, target)


def two(first: str, second: str) -> Make:
    def make(room: Room) -> None:
        room.put(first, b"1")
        room.put(second, b"2")

    return make


DESCRIBED: dict[str, tuple[Make, str]] = {
    "a link out of the folder": (put_special("link", "/etc/passwd"), "out of the folder"),
    "an endless device": (put_special("link", "/dev/zero"), "out of the folder"),
    "a link to itself": (put_special("link", "other.safetensors"), "leads to itself"),
    "a pipe": (put_special("pipe"), "a pipe"),
    "a socket": (put_special("socket"), "a socket"),
    "10,000 links": (link_farm(10_000), "out of the folder"),
    "folders 40 deep": (deep(40), "deeper than 32"),
    "a name that is not UTF-8": (named(b"\xff"), "not UTF-8"),
    "a name with a newline": (named(b"a\nb"), "control character"),
    "a name with a backslash": (named(b"a\\b"), "backslash"),
    "names that differ in case": (two("A", "a"), "one file on some systems"),
    "names composed and decomposed": (two("\u00e9", "e\u0301"), "one file on some systems"),
}


def verifying(spoil: Make) -> Make:
    """The copy and the bundle in it are verified by the OMS protocol."""

    def make(room: Room) -> list[object]:
        spoil(room)
        return [
            *("oms", "verify-model", "--method", "key", "--bundle", room.copy / "model.sig"),
            *("--public-key", room.signer.public, "--model-path", room.copy),
        ]

    return make


def signs(*resources: Any, text: bytes | None = None) -> Make:
    return lambda room: room.sign(text or statement(*resources))


def bundle_is(data: bytes) -> Make:
    return lambda room: room.put("model.sig", data) and None


def pipe_as_bundle(room: Room) -> None:
    (room.copy / "model.sig").unlink()
    os.mkfifo(room.copy / "model.sig")


VERIFIED: dict[str, tuple[Make, str]] = {
    "an empty bundle": (bundle_is(b""), "not JSON"),
    "a bundle nested 10^5 deep": (bundle_is(b"[" * 100_000), "too deep"),
    "a bundle of junk": (bundle_is(os.urandom(1000)), "UTF-8|not JSON"),
    "a bundle that nobody signed": (bundle_is(bundle(statement(resource()), b"x")), "not hold"),
    "a bundle that is a pipe": (pipe_as_bundle, "not a regular file"),
    "a name of a folder above": (signs(resource("../official/config.json")), "not a name inside"),
    "a name twice": (signs(resource(), resource()), "twice"),
    "no file": (signs(text=statement()), "lists no file"),
    "a file that is not there": (signs(resource("none")), "none is missing"),
    "a planted link": (put_special("link", "/etc/passwd"), "not in the signed list|link"),
    "a planted pipe": (put_special("pipe"), "not in the signed list|pipe"),
    "a name with an escape sequence": (named(b"\x1b[2J"), "not in the signed list"),
    "a name that is not UTF-8": (named(b"\xff"), "not in the signed list|UTF-8"),
}


def older_than_seen(room: Room) -> None:
    hint = dsse.key_hint(room.signer.key.public_key())
    seen = {hint: {"test/tiny@1": 9}}
    (room.folder / "data" / "seen.json").write_text(json.dumps(seen))


def seen_is(text: str) -> Make:
    """What was seen is remembered in a file that somebody spoiled: nothing was seen."""

    def make(room: Room) -> None:
        (room.folder / "data" / "seen.json").write_text(text)
        (room.copy / "more.txt").touch()

    return make


def whole_differs(room: Room) -> list[object]:
    """The leaves hold; the whole digest, which was signed beside them, does not."""
    signed = {
        path.relative_to(room.copy).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in room.copy.rglob("*")
        if path.is_file() and path.name != "model.sig"
    }
    signed["config.json"] = "0" * 64
    resources = [oms.Resource(*pair) for pair in signed.items()]
    room.put("model.sig", oms.sign(resources, "test/tiny@1", room.signer.key))
    return ["--whole"]


def listed(room: Room) -> list[object]:
    digest = hashlib.md5((room.copy / SHARD).read_bytes()).hexdigest()
    return ["--manifest", room.give("checklist.chk", f"{digest}  {SHARD}\n")]


def damaged_without_digests(room: Room) -> None:
    """No value digests, and other weight files: nothing can be said of them."""
    room.instead("model.safetensors", file({"model.norm.weight": F32}))
    (room.copy / ".weighbridge" / "tensors.json").unlink()


def report_of_markup(room: Room) -> list[object]:
    """Names that are markup, on a page."""
    Path(room.copy, "<script>alert(1)<").touch()
    Path(room.copy, '" onload=alert(1) x="').touch()
    return ["--report", room.folder / "data" / "report.html"]


def report_into(where: str) -> Make:
    return lambda room: ["--report", room.folder / where]


def report_onto_folder(room: Room) -> list[object]:
    (room.folder / "data" / "page").mkdir()
    return ["--report", room.folder / "data" / "page"]


SEEN = {"that is nested": "[" * 100_000, "that is a list": "[]", "of odd values": '{"a": 1}'}

CASES = [
    *table("describe", DESCRIBED, describing, argument="", status=2),
    *table("oms verify-model", VERIFIED, verifying, argument="", status=2),
    *table(
        "what was seen in a file",
        {name: (text, "not in the manifest") for name, text in SEEN.items()},
        seen_is,
        code="unlisted",
        status=0,
    ),
    Case("an older revision than was seen", older_than_seen, "revision 9", "rollback"),
    Case("a whole digest that contradicts", whole_differs, "contradicts", "whole-differs"),
    Case("a list that nobody signed", listed, "MD5", "unsigned", 0, key=False),
    Case("no value digests", damaged_without_digests, "no value", "weights-not-compared"),
    Case("a report of markup", report_of_markup, "not in the manifest", "unlisted", 0),
    Case("a report into nowhere", report_into("data/none/x.html"), "cannot be written", status=2),
    Case("a report onto a folder", report_onto_folder, "cannot be written", status=2),
]
