"""What the cases share: keys and certificates as the suite has them, and how it calls a client."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.verifier.conformance.models import MODELS
from tests.verifier.pki import SIGNS, authority, issue
from tests.verifier.test_certificates import code_signing
from verifier import dsse

P384 = ec.SECP384R1()
IDENTITY = ["--identity", "test@example.com", "--identity-provider", "https://idp.example.com"]


class Keys:
    """A key of the suite: what signs, what is trusted, by key or by certificate."""

    def __init__(self, folder, curve=P384, root=None, middle=None, leaf=None, alone=False):
        key = ec.generate_private_key(curve)
        if alone:
            signer = top = issue(
                "self-signed", key=key, ca=True, usage=SIGNS, others=((code_signing(), False),)
            )
            above = signer
        else:
            top = authority("root-ca", **(root or {}))
            above = authority("intermediate-ca", top, path_length=0, **(middle or {}))
            signer = above.issue("signing-key", key=key, **(leaf or {}))
        self.private, self.certificate = signer.write(folder, "signer")
        _, self.chain = above.write(folder, "above")
        _, self.top = top.write(folder, "top")
        self.public = folder / "signer.pub.pem"
        self.public.write_bytes(dsse.public_pem(key.public_key()))
        self.key = key

    def sign(self, method):
        """Return the options that sign by ``method``."""
        given = ["--method", method, "--private-key", self.private]
        if method == "certificate":
            given += ["--signing-cert", self.certificate, "--cert-chain", self.chain]
        return given

    def verify(self, method):
        """Return the options that trust by ``method``."""
        if method == "sigstore":
            return ["--method", method, *IDENTITY]
        trusted = {"key": ["--public-key", self.public], "certificate": ["--cert-chain", self.top]}
        return ["--method", method, *trusted[method]]


class Suite:
    def __init__(self, command, folder):
        self.command = command
        self.bundle = folder / "bundle.sig"
        self.folder = folder / "model"

    def sign(self, name, given_keys, method="key", bundle=None):
        model = MODELS[name]
        self.path = model.make(self.folder)
        self.bundle = bundle or self.bundle
        ignored = [x for path in model.ignored for x in ("--ignore-paths", self.folder / path)]
        given = ["--model-path", self.path, "--output-bundle", self.bundle, *ignored]
        return self.command("sign-model", *given_keys.sign(method), *given)

    def verify(self, given_keys, method="key", *, ignore=(), unsigned=False):
        ignored = [x for path in ignore for x in ("--ignore-paths", self.folder / path)]
        given = ["--model-path", self.path, "--bundle", self.bundle, *ignored]
        given += ["--ignore-unsigned-files"] * unsigned
        return self.command("verify-model", *given_keys.verify(method), *given)

    def statement(self):
        bundle = json.loads(self.bundle.read_text())
        return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


@pytest.fixture
def key_folder(tmp_path):
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys"


@pytest.fixture
def signer_keys(key_folder):
    return Keys(key_folder)


@pytest.fixture
def suite(oms_command, tmp_path):
    """Sign and verify a model of the suite as its adapters do."""
    return Suite(oms_command, tmp_path)
