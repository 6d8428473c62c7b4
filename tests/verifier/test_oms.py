"""Bundles: what others accept of ours, and what we refuse of others'."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier import dsse, keys, oms
from verifier.errors import ManifestError, SignatureError, VerifierError
from verifier.trust import Trust

CURVES = [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1]
FUZZ_KEY = ec.generate_private_key(ec.SECP256R1())
EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP256R1())


def reference_tool(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def sign_folder(folder, key, name="m"):
    resources = [
        oms.Resource(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return oms.sign(resources, name, key)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / ".hidden").write_text("")
    (folder / "sub" / "weights.bin").write_bytes(bytes(1000))
    (folder / "sub.bin").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("curve", CURVES)
def test_the_reference_tool_accepts_what_we_sign(folder, tmp_path, curve):
    key = ec.generate_private_key(curve())
    (folder / "model.sig").write_bytes(sign_folder(folder, key))
    public = tmp_path / "key.pub.pem"
    public.write_bytes(dsse.public_pem(key.public_key()))
    command = ["verify", "key", folder, "--signature", folder / "model.sig", "--public_key", public]
    done = reference_tool(*command)
    assert done.returncode == 0, done.stderr
    (folder / "config.json").write_text("{ }")
    assert reference_tool(*command).returncode == 1


@pytest.mark.parametrize("curve", CURVES)
def test_we_accept_what_the_reference_tool_signs(folder, tmp_path, curve):
    key = ec.generate_private_key(curve())
    private = tmp_path / "key.pem"
    private.write_bytes(keys.private_pem(key))
    bundle = tmp_path / "model.sig"
    done = reference_tool("sign", "key", folder, "--signature", bundle, "--private_key", private)
    assert done.returncode == 0, done.stderr
    statement = oms.verify(bundle.read_bytes(), Trust.in_keys(key.public_key()))
    assert {r.name for r in statement.resources} == {
        ".hidden",
        "config.json",
        "sub.bin",
        "sub/weights.bin",
    }
    assert statement.name == "model"


def test_a_bundle_names_its_files_key_and_digest(folder, key):
    bundle = sign_folder(folder, key)
    statement = oms.verify(bundle, Trust.in_keys(key.public_key()))
    payload = base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])
    assert statement.digest == hashlib.sha256(payload).hexdigest()
    assert statement.signed_by == oms.key_hint(key.public_key())
    assert ".cache/huggingface" in statement.ignore_paths
    assert [r.name for r in statement.resources] == sorted(r.name for r in statement.resources)


def test_another_key_is_not_trusted(folder, key):
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(SignatureError, match="not trusted"):
        oms.verify(sign_folder(folder, key), Trust.in_keys(other))


def test_one_changed_byte_of_the_payload_is_refused(folder, key):
    bundle = json.loads(sign_folder(folder, key))
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"config", b"c0nfig")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureError, match="does not hold"):
        oms.verify(json.dumps(bundle).encode(), Trust.in_keys(key.public_key()))


def test_the_hint_may_be_absent_or_raw_bytes_and_keyid_null(folder, key):
    bundle = json.loads(sign_folder(folder, key))
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = None
    raw = base64.b64encode(dsse.public_pem(key.public_key())).decode()
    for material in ({"publicKey": {}}, {"publicKey": {"rawBytes": raw}, "tlogEntries": []}):
        bundle["verificationMaterial"] = material
        assert oms.verify(json.dumps(bundle).encode(), Trust.in_keys(key.public_key())).resources


def test_only_the_three_curves_sign(key):
    resource = oms.Resource("a", EMPTY)
    with pytest.raises(ManifestError, match="P-256"):
        oms.sign([resource], "m", ec.generate_private_key(ec.SECP256K1()))


@pytest.mark.parametrize(
    "names", [[], ["a", "a"], ["../a"], ["/a"], ["a\0b"], [".git/config"], [".", "a"]]
)
def test_what_others_would_refuse_is_not_signed(names, key):
    with pytest.raises(ManifestError):
        oms.sign([oms.Resource(name, EMPTY) for name in names], "m", key)


def statement_of(resources, **changes):
    root = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    return {
        "_type": oms.STATEMENT_TYPE,
        "subject": [{"name": "m", "digest": {"sha256": root}}],
        "predicateType": oms.PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": resources,
        },
    } | changes


def bundle_of(payload, key, **changes):
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": dsse.PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(dsse.sign(payload, key)).decode()}],
    }
    bundle = {
        "mediaType": oms.BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": oms.key_hint(key.public_key())}},
        "dsseEnvelope": envelope,
    }
    return json.dumps(bundle | changes).encode()


def resource(name="a", digest=EMPTY, algorithm="sha256"):
    return {"name": name, "algorithm": algorithm, "digest": digest}


def test_names_are_reduced_to_one_form(key):
    payload = json.dumps(statement_of([resource("./a//b")])).encode()
    statement = oms.verify(bundle_of(payload, key), Trust.in_keys(key.public_key()))
    assert statement.resources[0].name == "a/b"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (statement_of([resource(), resource()]), "twice"),
        (statement_of([resource("a"), resource("./a")]), "twice"),
        (statement_of([resource("../a")]), "not a name inside"),
        (statement_of([resource("/etc/passwd")]), "not a name inside"),
        (statement_of([resource("a\0b")]), "not a name inside"),
        (statement_of([resource("\ud800")]), "surrogate"),
        (statement_of([resource("a" * 300)]), "too long"),
        (statement_of([resource(digest=EMPTY.upper())]), "lowercase"),
        (statement_of([resource(digest=EMPTY[:-2])]), "lowercase"),
        (statement_of([resource(algorithm="md5")]), "in 'md5'"),
        (statement_of([]), "no file"),
        (statement_of([resource()], subject=[]), "exactly one subject"),
        (statement_of([resource()], predicateType="x"), "predicateType"),
        (statement_of([resource()], _type="x"), "in-toto"),
        (statement_of([resource()], predicate=[]), "`predicate`"),
        (
            statement_of([resource()], subject=[{"name": "m", "digest": {"sha256": "0" * 64}}]),
            "contradicts itself",
        ),
    ],
)
def test_a_signed_statement_that_breaks_the_rules_is_refused(statement, reason, key):
    payload = json.dumps(statement).encode()
    with pytest.raises(ManifestError, match=reason):
        oms.verify(bundle_of(payload, key), Trust.in_keys(key.public_key()))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"_type": 1, "_type": 2}', "repeats the key"),
        (b'{"_type": NaN}', "NaN"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" + b"0," * 2_100_000 + b"0]", "more than"),
        (b" " * (17 << 20), "larger than"),
    ],
    ids=["deep", "duplicate", "nan", "bytes", "short", "huge-number", "many", "large"],
)
def test_signed_bytes_that_are_no_honest_json_are_refused(payload, reason, key):
    with pytest.raises(ManifestError, match=reason):
        oms.verify(bundle_of(payload, key), Trust.in_keys(key.public_key()))


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": "text/plain"},
        {"dsseEnvelope": None},
        {"verificationMaterial": {"publicKey": {"hint": 7}}},
    ],
)
def test_a_bundle_of_another_form_is_refused(changes, key):
    payload = json.dumps(statement_of([resource()])).encode()
    with pytest.raises(ManifestError):
        oms.verify(bundle_of(payload, key, **changes), Trust.in_keys(key.public_key()))


def test_bytes_are_verified_before_they_are_parsed(key):
    """What a stranger signed is never parsed, however it is made."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    hint = {"publicKey": {"hint": oms.key_hint(key.public_key())}}
    bundle = bundle_of(b"[" * 100_000, stranger, verificationMaterial=hint)
    with pytest.raises(SignatureError):
        oms.verify(bundle, Trust.in_keys(key.public_key()))


def sign_0_2_0(payload, key):
    from cryptography.hazmat.primitives import hashes

    signature = key.sign(b"".join(dsse.pae_0_2_0(payload)), ec.ECDSA(hashes.SHA256()))
    bundle = json.loads(bundle_of(payload, key))
    bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
    return json.dumps(bundle).encode()


def test_the_encoding_of_0_2_0_is_taken_for_its_own_statements_only(key):
    old = {
        "_type": oms.STATEMENT_TYPE,
        "subject": [{"name": "a", "digest": {"sha256": EMPTY}}],
        "predicateType": oms.PREDICATE_TYPE_0_2_0,
        "predicate": {},
    }
    bundle = sign_0_2_0(json.dumps(old).encode(), key)
    assert oms.verify(bundle, Trust.in_keys(key.public_key())).resources[0].name == "a"
    new = sign_0_2_0(json.dumps(statement_of([resource()])).encode(), key)
    with pytest.raises(SignatureError):
        oms.verify(new, Trust.in_keys(key.public_key()))


def oms_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "verifier", "oms", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_the_oms_command_signs_and_verifies_both_ways_with_the_reference_tool(
    folder, key, tmp_path
):
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    private.write_bytes(keys.private_pem(key))
    public.write_bytes(dsse.public_pem(key.public_key()))
    bundle = folder / "model.sig"
    common = ["--method", "key", "--model-path", folder]
    done = oms_command("sign-model", *common, "--output-bundle", bundle, "--private-key", private)
    assert done.returncode == 0, done.stderr
    theirs = reference_tool("verify", "key", folder, "--signature", bundle, "--public_key", public)
    assert theirs.returncode == 0, theirs.stderr
    ours = ["verify-model", *common, "--bundle", bundle, "--public-key", public]
    assert oms_command(*ours).returncode == 0
    (folder / "extra").write_text("")
    refused = oms_command(*ours)
    assert refused.returncode != 0
    assert refused.stderr == "extra is not in the signed list.\n"
    assert oms_command(*ours, "--ignore-unsigned-files").returncode == 0
    (folder / "config.json").unlink()
    assert "config.json" in oms_command(*ours, "--ignore-unsigned-files").stderr


def test_a_folder_of_nothing_is_not_signed(tmp_path, key):
    private = tmp_path / "key.pem"
    private.write_bytes(keys.private_pem(key))
    (tmp_path / "empty").mkdir()
    common = ["--method", "key", "--model-path", tmp_path / "empty"]
    done = oms_command(
        "sign-model", *common, "--output-bundle", tmp_path / "m.sig", "--private-key", private
    )
    assert done.returncode == 2
    assert not (tmp_path / "m.sig").exists()


def test_published_checkpoints_are_accepted_by_the_reference_tool(published, tmp_path):
    folder = shutil.copytree(published.folder, tmp_path / "copy")
    command = ["verify", "key", folder, "--signature", folder / "model.sig"]
    command += ["--public_key", published.signer.public]
    done = reference_tool(*command)
    assert done.returncode == 0, done.stderr
    (folder / ".weighbridge" / "checkpoint.json").write_text("{}")
    assert reference_tool(*command).returncode == 1


def test_pem_hints_are_those_of_the_reference_tool(key):
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert oms.key_hint(key.public_key()) == hashlib.sha256(pem).hexdigest()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["_type", "subject", "predicate", "predicateType", "resources", "name", "digest"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_bundle_or_an_error_of_ours(data):
    with pytest.raises(VerifierError):
        oms.verify(data, Trust.in_keys(FUZZ_KEY.public_key()))


@given(json_values, st.sampled_from([None, "subject", "predicate", "_type", "predicateType"]))
@settings(max_examples=150, deadline=None)
def test_any_signed_json_is_a_statement_or_an_error_of_ours(value, field):
    statement = value if field is None else statement_of([resource()], **{field: value})
    bundle = bundle_of(json.dumps(statement).encode(), FUZZ_KEY)
    try:
        read = oms.verify(bundle, Trust.in_keys(FUZZ_KEY.public_key()))
    except VerifierError as error:
        assert str(error).endswith(".")
        return
    assert read.name and [r.name for r in read.resources] == ["a"]
