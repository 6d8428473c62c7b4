"""Files given as trusted keys."""

import base64
import os
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .cases import MIB, Case, Make, Room, table


def pem(key: Any) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def trusting(given: Any) -> Make:
    """The bytes are the trusted key."""
    return lambda room: [
        "--trusted-key",
        room.give("key.pem", given() if callable(given) else given),
    ]


def armoured(label: str, data: bytes) -> bytes:
    return (
        f"-----BEGIN {label}-----\n".encode()
        + base64.encodebytes(data)
        + (f"-----END {label}-----\n".encode())
    )


KEYS = {
    "empty": (b"", "not a PEM"),
    "junk": (b"\xff" * 1000, "not a PEM"),
    "16 MiB": (lambda: b"-" * 16 * MIB, "not a PEM|larger"),
    "an armour around nothing": (armoured("PUBLIC KEY", b""), "not a PEM|not a P-256"),
    "an armour around junk": (armoured("PUBLIC KEY", bytes(91)), "not a PEM|not a P-256"),
    "DER nested 10,000 deep": (armoured("PUBLIC KEY", b"\x30\x80" * 10_000), "not a PEM"),
    "DER of 2^31 bytes": (armoured("PUBLIC KEY", b"\x30\x84\x7f\xff\xff\xff"), "not a PEM"),
    "Ed25519": (lambda: pem(ed25519.Ed25519PrivateKey.generate().public_key()), "P-256"),
    "RSA": (lambda: pem(rsa.generate_private_key(65537, 2048).public_key()), "P-256"),
    "secp256k1": (lambda: pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "P-256"),
    "a private key": (
        lambda: ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        "private key",
    ),
    "a certificate that is none": (armoured("CERTIFICATE", b"x"), "certificate"),
    "a root that is a list": (b"[]", "not a PEM|root|list"),
    "a root nested 10^5 deep": (b'{"a":' * 100_000, "not a PEM|too deep|root"),
    "a point off the curve": (
        armoured(
            "PUBLIC KEY",
            bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
            + b"\x04"
            + bytes(64),
        ),
        "not a PEM|not a P-256",
    ),
}


def special_key(kind: str) -> Make:
    def make(room: Room) -> list[object]:
        path = room.aside / "key"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path)
        else:
            path.symlink_to("/dev/zero")
        return ["--trusted-key", path]

    return make


BROKEN: dict[str, Any] = {"status": 2}

CASES = [
    *table("trusted key", KEYS, trusting, key=False, **BROKEN),
    *table(
        "trusted key",
        {
            "that is a pipe": ("pipe", "not a regular file"),
            "that is a folder": ("folder", "regular file|directory"),
            "that is a link to itself": ("loop", "cannot be read"),
            "that is an endless device": ("zero", "not a regular file"),
        },
        special_key,
        key=False,
        **BROKEN,
    ),
    Case("no trusted key", lambda room: None, "No key is trusted", status=2, key=False),
]
