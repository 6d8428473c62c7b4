"""Signature bundles and statements that are broken, enormous, or say what cannot be."""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from verifier import dsse

from .cases import MIB, Case, Make, Room, bundle, table

EMPTY = hashlib.sha256(b"").hexdigest()


Change = Callable[[Any], object]


def resource(name: str = "a", digest: str = EMPTY, algorithm: str = "sha256") -> dict[str, str]:
    return {"name": name, "algorithm": algorithm, "digest": digest}


def statement(*resources: Any, **changes: Any) -> bytes:
    """Return a payload that would be good but for ``changes``; the root digest fits."""
    listed = list(resources)
    digests = [r.get("digest", "") for r in listed if isinstance(r, dict)]
    try:
        root = hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
    except (TypeError, ValueError):
        root = EMPTY
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": listed,
        },
    }
    return json.dumps(made | changes).encode()


def signed(given: Any) -> Make:
    """The payload is signed by the trusted key: a careless publisher's, not a stranger's."""
    return lambda room: room.sign(given() if callable(given) else given)


def put(given: Any) -> Make:
    """The bytes are the bundle."""
    return lambda room: room.put("model.sig", given() if callable(given) else given) and None


def changed(change: Change) -> Make:
    """The good bundle, after ``change``."""

    def make(room: Room) -> None:
        value = json.loads((room.copy / "model.sig").read_text())
        change(value)
        room.put("model.sig", json.dumps(value))

    return make


def set_at(*path: Any, value: Any) -> Change:
    """Return a change of one place of a JSON value."""

    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        del found[path[-1]]

    return change


def repeat_signature(count: int) -> Change:
    def change(found: Any) -> None:
        found["dsseEnvelope"]["signatures"] *= count

    return change


BUNDLES = {
    "empty": (b"", "not JSON"),
    "a NUL": (b"\0", "not JSON"),
    "a list": (b"[]", "mediaType|wrong type"),
    "null": (b"null", "mediaType|wrong type"),
    "nested 10^5 deep": (b"[" * 100_000, "too deep"),
    "objects nested 10^5 deep": (b'{"a":' * 100_000, "too deep"),
    "a key twice": (b'{"mediaType":"a","mediaType":"b"}', "repeats the key"),
    "NaN": (b'{"mediaType":NaN}', "NaN"),
    "a number of 10^5 digits": (b'{"a":' + b"9" * 100_000 + b"}", "digits"),
    "half a surrogate pair": (b'{"mediaType":"\\ud800"}', "surrogate"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "UTF-16": ("{}".encode("utf-16"), "UTF-8|not JSON"),
    "Latin-1": (b'{"a":"\xe9"}', "UTF-8"),
    "two objects": (b"{}{}", "not JSON"),
    "cut off": (bundle(b"{}", b"x")[:-5], "not JSON"),
    "a web page": (b"<html>404</html>", "not JSON"),
    "a PEM": (b"-----BEGIN PUBLIC KEY-----\n", "not JSON"),
    "30 MiB": (lambda: b'"' + b"a" * 30 * MIB + b'"', "larger than"),
    "20 MiB of commas": (lambda: b"[" + b"0," * (10 * MIB) + b"0]", "items"),
    "20 MiB of astral characters": (
        lambda: b'{"a":"' + b"\xf0\x9f\x98\x80" * (5 * MIB) + b'"}',
        "larger than",
    ),
    "another mediaType": (bundle(b"{}", b"x", mediaType="text/plain"), "unknown mediaType"),
    "a mediaType of 20 MiB": (
        lambda: bundle(b"{}", b"x", mediaType="x" * 20 * MIB),
        "unknown mediaType",
    ),
    "a mediaType that is a list": (bundle(b"{}", b"x", mediaType=[]), "wrong type|mediaType"),
    "no envelope": (bundle(b"{}", b"x", dsseEnvelope=None), "wrong type"),
    "an envelope that is a list": (bundle(b"{}", b"x", dsseEnvelope=[1]), "wrong type"),
    "a message signature": (
        bundle(b"{}", b"x", dsseEnvelope=None, messageSignature={"signature": "AA=="}),
        "wrong type|does not know",
    ),
    "a payload of junk": (bundle(b"\xff\xfe junk", b"x"), "does not hold"),
    "a payload of 17 MiB": (lambda: bundle(bytes(17 * MIB), b"x"), "does not hold|larger"),
    "a payload of 17 MiB of odd bytes": (
        lambda: bundle(b"\xff" * (17 * MIB), b"0\x06\x02\x01\x01\x02\x01\x01"),
        "does not hold|larger",
    ),
    "a payload of quotes": (lambda: bundle(b"'\"" * (8 * MIB), b"x"), "does not hold|larger"),
    "a signature of a mebibyte": (bundle(b"{}", bytes(MIB)), "does not hold"),
    "an empty signature": (bundle(b"{}", b""), "does not hold"),
    "a signature of r = s = 0": (bundle(b"{}", b"0\x06\x02\x01\0\x02\x01\0"), "does not hold"),
    "a signature of 2^(2^20)": (
        bundle(
            b"{}", b"0\x83\x10\0\x08\x02\x83\x10\0\0" + b"\x7f" + b"\xff" * (MIB - 1) + b"\2\1\1"
        ),
        "does not hold",
    ),
}


PARTS: dict[str, tuple[Change, str]] = {
    "no signature": (set_at("dsseEnvelope", "signatures", value=[]), "exactly one"),
    "two signatures": (repeat_signature(2), "exactly one"),
    "100,000 signatures": (repeat_signature(100_000), "exactly one"),
    "a signature that is text": (set_at("dsseEnvelope", "signatures", value=["x"]), "wrong type"),
    "a signature that is null": (
        set_at("dsseEnvelope", "signatures", 0, "sig", value=None),
        "wrong type",
    ),
    "a signature that is no base64": (
        set_at("dsseEnvelope", "signatures", 0, "sig", value="!!!"),
        "not base64",
    ),
    "a signature with spaces": (
        set_at("dsseEnvelope", "signatures", 0, "sig", value="AA AA"),
        "not base64",
    ),
    "a signature beyond ASCII": (
        set_at("dsseEnvelope", "signatures", 0, "sig", value="ÄÄ=="),
        "not base64",
    ),
    "a payload that is no base64": (set_at("dsseEnvelope", "payload", value="e30"), "not base64"),
    "a payload of padding": (set_at("dsseEnvelope", "payload", value="=" * MIB), "not base64"),
    "a payload that is a number": (set_at("dsseEnvelope", "payload", value=1), "wrong type"),
    "an empty payload": (set_at("dsseEnvelope", "payload", value=""), "does not hold"),
    "another payloadType": (set_at("dsseEnvelope", "payloadType", value="text"), "payloadType"),
    "no payloadType": (drop("dsseEnvelope", "payloadType"), "wrong type"),
    "no material": (drop("verificationMaterial"), "wrong type"),
    "material that is a list": (set_at("verificationMaterial", value=[]), "wrong type"),
    "a key that is text": (
        set_at("verificationMaterial", "publicKey", value="x"),
        "wrong type|not text",
    ),
    "a hint that is a number": (
        set_at("verificationMaterial", "publicKey", "hint", value=7),
        "hint|wrong type",
    ),
}


UNTRUSTED: dict[str, tuple[Change, str]] = {
    "a hint of another key": (
        set_at("verificationMaterial", "publicKey", "hint", value="0" * 64),
        "not trusted here",
    ),
    "a hint of 8 MiB of control characters": (
        set_at("verificationMaterial", "publicKey", "hint", value="\x1b" * (MIB)),
        "not trusted here",
    ),
    "a hint that turns the line around": (
        set_at("verificationMaterial", "publicKey", "hint", value="\u202eabc\n\x1b[2J"),
        "not trusted here",
    ),
    "one bit of the payload": (
        lambda found: found["dsseEnvelope"].update(
            payload="f" + found["dsseEnvelope"]["payload"][1:]
        ),
        "does not hold",
    ),
    "a signature cut off": (
        lambda found: found["dsseEnvelope"]["signatures"][0].update(
            sig=base64.b64encode(
                base64.b64decode(found["dsseEnvelope"]["signatures"][0]["sig"])[:-1]
            ).decode()
        ),
        "does not hold",
    ),
}


PREDICATE = json.loads(statement(resource()))["predicate"]


STATEMENTS = {
    "not JSON": (b"{", "not JSON"),
    "not UTF-8": (b"\xff", "UTF-8"),
    "empty": (b"", "not JSON"),
    "a list": (b"[]", "wrong type"),
    "nested 10^5 deep": (b"[" * 100_000, "too deep"),
    "a key twice": (b'{"_type":"a","_type":"b"}', "repeats the key"),
    "another _type": (statement(resource(), _type="x"), "not an in-toto Statement"),
    "another predicateType": (statement(resource(), predicateType="x"), "predicateType"),
    "no subject": (statement(resource(), subject=[]), "exactly one subject"),
    "two subjects": (
        statement(resource(), subject=[{"name": "m", "digest": {"sha256": EMPTY}}] * 2),
        "exactly one subject",
    ),
    "a subject that is text": (statement(resource(), subject=["m"]), "wrong type"),
    "a subject without a name": (
        statement(resource(), subject=[{"name": "", "digest": {"sha256": EMPTY}}]),
        "no name",
    ),
    "a subject without a digest": (statement(resource(), subject=[{"name": "m"}]), "wrong type"),
    "a wrong root digest": (
        statement(resource(), subject=[{"name": "m", "digest": {"sha256": "0" * 64}}]),
        "contradicts itself",
    ),
    "no predicate": (statement(resource(), predicate=None), "wrong type"),
    "a predicate without serialization": (
        statement(resource(), predicate={"resources": []}),
        "wrong type",
    ),
    "a method of 900 lists": (
        statement(predicate={"serialization": {"method": "@"}, "resources": []}).replace(
            b'"@"', b"[" * 900 + b"]" * 900
        ),
        "lists|read|wrong type|method",
    ),
    "no resource": (statement(), "lists no file"),
    "a hash that is a list": (
        statement(resource()).replace(b'"hash_type": "sha256"', b'"hash_type": ["sha256"]'),
        "in 'a list'",
    ),
    "resources that are an object": (
        statement(predicate=PREDICATE | {"resources": {}}),
        "wrong type",
    ),
    "a resource that is text": (statement("a"), "wrong type"),
    "a resource without a name": (
        statement({"algorithm": "sha256", "digest": EMPTY}),
        "wrong type",
    ),
    "an empty name": (statement(resource("")), "without a name"),
    "a name of a folder above": (statement(resource("../copy/config.json")), "not a name inside"),
    "a name through a folder above": (statement(resource("a/../../b")), "not a name inside"),
    "an absolute name": (statement(resource("/etc/passwd")), "not a name inside"),
    "NUL in a name": (statement(resource("a\0b")), "not a name inside"),
    "half a surrogate pair in a name": (statement(resource("\ud800")), "surrogate"),
    "a name of 300 bytes": (statement(resource("a" * 300)), "too long"),
    "a name of 8 MiB": (lambda: statement(resource("\x1b" * MIB)), "too long"),
    "a name of 600 folders": (statement(resource("a/" * 600 + "a")), "too long"),
    "a name twice": (statement(resource(), resource()), "twice"),
    "a name twice, once with a dot": (statement(resource("a"), resource("./a")), "twice"),
    "a name twice, once with two slashes": (statement(resource("b/a"), resource("b//a")), "twice"),
    "a dot beside another name": (statement(resource("."), resource("a")), "single file"),
    "a digest in capitals": (
        statement(resource(digest="E3" + EMPTY[2:].upper())),
        "lowercase|digest",
    ),
    "a digest too short": (statement(resource(digest=EMPTY[:-2])), "SHA-256|digest"),
    "a digest that is empty": (statement(resource(digest="")), "SHA-256|digest"),
    "a digest that is a number": (
        statement({"name": "a", "algorithm": "sha256", "digest": 1}),
        "wrong type",
    ),
    "MD5": (statement(resource(digest="0" * 32, algorithm="md5")), "SHA-256|algorithm|md5"),
    "an algorithm of a mebibyte": (statement(resource(algorithm="x" * MIB)), "all is in sha256"),
    "100,001 files": (
        lambda: statement(*(resource(f"{n:x}") for n in range(100_001))),
        "more than 100,000|items|files",
    ),
    "ignore_paths that is text": (
        statement(resource()).replace(b'"ignore_paths": []', b'"ignore_paths": "a"'),
        "ignore_paths",
    ),
    "ignore_paths of numbers": (
        statement(resource()).replace(b'"ignore_paths": []', b'"ignore_paths": [1]'),
        "ignore_paths",
    ),
}


def colliding(first: str, second: str) -> Make:
    """Two names, beside our checkpoint.json, that are one file on some systems."""

    def make(room: Room) -> None:
        room.put(first, b"1")
        room.put(second, b"2")
        room.sign_again()

    return make


NAMES = {
    "that differ in case": (("Config.json", "config.json"), "one file on some systems"),
    "that differ in case beyond ASCII": (("straße.txt", "STRASSE.txt"), "one file on some systems"),
    "composed and decomposed": (("\u00e9", "e\u0301"), "one file on some systems"),
    "with a newline": (("a\nb", "c"), "control character"),
    "with an escape sequence": (("a\x1b[2Jb", "c"), "control character"),
    "with a backslash": (("a\\b", "c"), "backslash"),
    "with a colon": (("c:evil", "c"), "colon"),
}


def old_release(room: Room) -> None:
    """A bundle with the bytes that model_signing 0.2.0 signed, and today's predicate in it."""
    from cryptography.hazmat.primitives import hashes

    payload = statement(resource())
    signature = room.signer.key.sign(b"".join(dsse.pae_0_2_0(payload)), ec.ECDSA(hashes.SHA256()))
    room.put("model.sig", bundle(payload, signature))


def manifest_is(kind: str) -> Make:
    def make(room: Room) -> None:
        path = room.copy / "model.sig"
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        elif kind == "loop":
            path.symlink_to("model.sig")
        elif kind == "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 40)

    return make


SPECIAL = {
    "that is not there": ("none", "no manifest"),
    "that is a pipe": ("pipe", "not a regular file"),
    "that is a folder": ("folder", "not a regular file|is a directory"),
    "that is an endless device": ("zero", "not a regular file"),
    "that is a link to itself": ("loop", "no manifest|symbolic links"),
    "that is a sparse tebibyte": ("sparse", "larger than"),
}


BROKEN: dict[str, Any] = {"status": 2}

CASES = [
    *table("bundle", {k: v for k, v in BUNDLES.items() if "hold" not in v[1]}, put, **BROKEN),
    *table(
        "bundle",
        {k: v for k, v in BUNDLES.items() if "hold" in v[1]},
        put,
        code="bad-signature",
    ),
    *table(
        "bundle with", {k: v for k, v in PARTS.items() if "hold" not in v[1]}, changed, **BROKEN
    ),
    *table(
        "bundle with",
        {k: v for k, v in (PARTS | UNTRUSTED).items() if "hold" in v[1] or "trusted" in v[1]},
        changed,
        code="bad-signature",
    ),
    *table("statement", STATEMENTS, signed, **BROKEN),
    *table("names", NAMES, lambda pair: colliding(*pair), **BROKEN),
    *table("manifest", SPECIAL, manifest_is, **BROKEN),
    Case("bundle: signed as 0.2.0 did", old_release, "only version 0.2.0", "bad-signature"),
]
