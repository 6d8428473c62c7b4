"""Make bundles with each release of the reference tool, to be kept: `… make_oms.py VENVS OUT`.

VENVS holds a virtual environment per old release, named by it, each made with

    pip install model-signing==RELEASE 'sigstore>=3.6,<3.7' 'sigstore-protobuf-specs<0.4' pyopenssl

The newest release is the one that is installed here. OUT must be new: what was made once is never
made again, since its private keys are thrown away. It will hold the model, the public key and the
authority's certificate (both good until 2120), and RELEASE-METHOD[-VARIANT].sig for each form;
`file` is a model of one file, `weighbridge` is this project.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.verifier.pki import FAR, Holder, authority
from verifier import dsse

OLD = ("0.3.1", "1.0.0", "1.0.1")
NEWEST = "1.1.1"
MODEL = {
    "config.json": b'{"model_type": "test"}\n',
    "weights.bin": bytes(range(256)) * 10,
    ".hidden": b"signed like any other\n",
    "sub/vocabulary.txt": "één\ntwo\n".encode(),
    "sub.txt": b"sorts before sub/ by parts and after it by name\n",
    "empty.bin": b"",
}

_0_2_0 = """
import sys
from pathlib import Path
from model_signing import model
from model_signing.hashing import file, memory
from model_signing.serialization import serialize_by_file
from model_signing.signature import key, pki
from model_signing.signing import in_toto, in_toto_signature
folder, out, private, certificate, *chain = sys.argv[1:]
signer = key.ECKeySigner.from_path(private)
if certificate:
    signer = pki.PKISigner.from_path(private, certificate, chain)
hasher = lambda path: file.SimpleFileHasher(path, memory.SHA256())
signature = model.sign(
    Path(folder), in_toto_signature.IntotoSigner(signer),
    in_toto.DigestsIntotoPayload.from_manifest, serialize_by_file.ManifestSerializer(hasher))
signature.write(Path(out))
"""
_OLD = """
import sys
from pathlib import Path
from model_signing import hashing, signing
model, out, private, *chain = map(Path, sys.argv[1:])
# The constructor of these releases asks Sigstore's servers, even where a key is to sign.
config = signing.Config.__new__(signing.Config)
hashes = hashing.Config()
if model.is_dir():
    hashes.set_ignored_paths(paths=[out], ignore_git_paths=True)
config._hashing_config = hashes
if chain:
    config.use_certificate_signer(
        private_key=private, signing_certificate=chain[0], certificate_chain=chain[1:])
else:
    config.use_elliptic_key_signer(private_key=private)
config.sign(model, out)
"""
_API = """
import sys
from pathlib import Path
from model_signing import hashing, signing
folder, out, private, method, algorithm = sys.argv[1:]
hashes = hashing.Config()
if method == "shards":
    hashes.use_shard_serialization(hashing_algorithm=algorithm, shard_size=1000)
else:
    hashes.use_file_serialization(hashing_algorithm=algorithm)
config = signing.Config().use_elliptic_key_signer(private_key=Path(private))
config.set_hashing_config(hashes).sign(Path(folder), Path(out))
"""


def main(venvs: Path, out: Path) -> None:
    """Make every form in ``out``."""
    out.mkdir(parents=True)
    model = out / "model"
    for name, content in MODEL.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        signer, middle, root = _infrastructure()
        private, certificate = signer.write(work, "signer")
        _, chain = middle.write(work, "middle")
        _, top = root.write(work, "root")
        (out / "authority.pem").write_bytes(top.read_bytes())
        (out / "key.pub.pem").write_bytes(dsse.public_pem(signer.key.public_key()))

        old = venvs / "0.2.0" / "bin" / "python"
        _run(old, "-c", _0_2_0, model, out / "0.2.0-key.sig", private, "")
        given = [private, certificate, chain]
        _run(old, "-c", _0_2_0, model, out / "0.2.0-certificate.sig", *given)
        forms = {
            "key": (model, private),
            "certificate": (model, private, certificate, chain),
            "key-file": (model / "weights.bin", private),
        }
        for release in OLD:
            for form, (what, *options) in forms.items():
                if (release, form) == ("0.3.1", "certificate"):
                    continue  # it misspells a field and ends with a TypeError
                bundle = out / f"{release}-{form}.sig"
                _run(venvs / release / "bin" / "python", "-c", _OLD, what, bundle, *options)
        for form, (what, *_) in forms.items():
            command = [sys.executable, "-m", "model_signing", "sign", form.removesuffix("-file")]
            command += ["--signature", out / f"{NEWEST}-{form}.sig", "--private_key", private]
            if form == "certificate":
                command += ["--signing_certificate", certificate, "--certificate_chain", chain]
            _run(*command, what)
        for method, algorithm in (
            ("files", "blake2"),
            ("files", "blake3"),
            ("shards", "sha256"),
            ("shards", "blake2"),
        ):
            bundle = out / f"{NEWEST}-key-{method}-{algorithm}.sig"
            _run(Path(sys.executable), "-c", _API, model, bundle, private, method, algorithm)
        ours = [sys.executable, "-m", "verifier", "oms", "sign-model", "--private-key", private]
        ours += ["--model-path", model]
        _run(*ours, "--method", "key", "--output-bundle", out / "weighbridge-key.sig")
        chained = ["--signing-cert", certificate, "--cert-chain", chain]
        bundle = out / "weighbridge-certificate.sig"
        _run(*ours, "--method", "certificate", *chained, "--output-bundle", bundle)


def _infrastructure() -> tuple[Holder, Holder, Holder]:
    """Return a signer on P-384, whose hash 0.2.0 took wrong, an authority, and a root with RSA."""
    root_key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    root = authority("Vectors root", key=root_key, ends=FAR)
    middle = authority("Vectors authority", root, path_length=0, ends=FAR)
    key = ec.generate_private_key(ec.SECP384R1())
    return middle.issue("Vectors signer", key=key, ends=FAR), middle, root


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
