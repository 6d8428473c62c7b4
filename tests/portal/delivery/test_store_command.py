"""`manage.py store`: a configuration is proven on the real thing, or it says what to change."""

import io
import json
from email.message import Message

import pytest
from django.core.management import CommandError, call_command

from portal.storage import checking
from portal.storage.stores import Stored, store
from tests.portal.conftest import hand_out
from tests.portal.storage.test_cloudfront import RSA, key_file
from tests.servers.edge import Edge

pytestmark = pytest.mark.slow
CONTENT = bytes(range(250)) * 400


def run(*arguments):
    """Return the exit status of `manage.py store …` and what it wrote."""
    out = io.StringIO()
    try:
        call_command("store", *arguments, stdout=out)
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


def steps(text, mark="✓"):
    return [line[2:].partition(":")[0] for line in text.splitlines() if line.startswith(mark)]


def left_in(s3, bucket):
    """What is in a bucket: versions, marks of deleted objects, unfinished uploads."""
    found = s3.list_object_versions(Bucket=bucket)
    uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return [*found.get("Versions", []), *found.get("DeleteMarkers", []), *uploads]


def test_a_folder_is_proven_through_the_running_portal(site, settings, tmp_path):
    settings.STORE_FOLDER = tmp_path / "store"
    status, text = run("check")
    assert status == 0, text
    assert steps(text) == [*checking.Check.STEPS, "delete"]
    assert list(settings.STORE_FOLDER.rglob("*")) == []


def test_nginx_is_proven_too(nginx, settings):
    status, text = run("check")
    assert status == 0, text
    assert list(settings.STORE_FOLDER.rglob("*")) == []
    assert "GET /d/check/" in nginx.log.read_text()


def test_a_bucket_is_proven_and_nothing_is_left_in_it(s3_settings, s3, committed_db):
    status, text = run("check")
    assert status == 0, text
    assert steps(text) == [*checking.Check.STEPS_OF_A_BUCKET, "delete"]
    assert left_in(s3, s3_settings.S3_BUCKET) == []


def test_cloudfront_is_proven_by_an_edge_that_knows_the_public_key(
    s3_settings, s3, committed_db, tmp_path
):
    s3_settings.CLOUDFRONT_KEY_ID = "K1"
    s3_settings.CLOUDFRONT_KEY_FILE = key_file(tmp_path, RSA)
    with Edge(s3, s3_settings.S3_BUCKET, RSA.public_key(), "K1") as edge:
        s3_settings.CLOUDFRONT_URL = edge.url
        status, text = run("check")
        assert status == 0, text
        s3_settings.CLOUDFRONT_KEY_ID = "K2"
        status, text = run("check")
    assert (status, steps(text, "✗")) == (1, ["get"])
    assert "trusted key group" in text
    assert left_in(s3, s3_settings.S3_BUCKET) == []


def test_a_key_that_others_can_read_is_no_setting_to_check(s3_settings, committed_db, tmp_path):
    s3_settings.CLOUDFRONT_URL, s3_settings.CLOUDFRONT_KEY_ID = "http://127.0.0.1:9", "K1"
    s3_settings.CLOUDFRONT_KEY_FILE = key_file(tmp_path, RSA, 0o644)
    status, text = run("check")
    assert status == 2 and "chmod 600" in text


def test_a_bucket_without_versions_is_named_and_holds(s3_settings, s3, committed_db):
    s3.create_bucket(Bucket="unversioned")
    s3_settings.S3_BUCKET = "unversioned"
    status, text = run("check")
    assert status == 0 and "turn versioning on" in text
    assert left_in(s3, "unversioned") == []


def test_a_bucket_that_anyone_can_read_is_refused(s3_settings, s3, committed_db):
    bucket = s3_settings.S3_BUCKET
    everyone = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject", "s3:GetObjectVersion"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(everyone))
    status, text = run("check")
    assert (status, steps(text, "✗")) == (1, ["no signature refused"])
    assert "Shut public access" in text
    assert left_in(s3, bucket) == []


@pytest.mark.parametrize(
    ("change", "step", "says"),
    [
        ({"S3_BUCKET": "no-such-bucket"}, "put", "make the bucket"),
        ({"S3_ENDPOINT": "http://127.0.0.1:9"}, "put", "WEIGHBRIDGE_S3_ENDPOINT"),
        ({"S3_KMS_KEY": "no-such-key"}, "put", "WEIGHBRIDGE_S3_KMS_KEY"),
        ({"S3_PUBLIC_ENDPOINT": "http://127.0.0.1:9"}, "get", "Nothing answers at 127.0.0.1:9"),
    ],
    ids=["bucket", "endpoint", "kms", "public-endpoint"],
)
def test_a_wrong_setting_is_named_at_the_step_where_it_counts(
    s3_settings, s3, committed_db, monkeypatch, change, step, says
):
    monkeypatch.setattr("portal.storage.s3.ATTEMPTS", 1)
    for name, value in change.items():
        setattr(s3_settings, name, value)
    status, text = run("check")
    assert (status, steps(text, "✗")) == (1, [step]), text
    assert says in text
    if s3_settings.S3_BUCKET != "no-such-bucket":
        assert left_in(s3, s3_settings.S3_BUCKET) == []


def test_a_wrong_secret_and_a_wrong_clock_are_told_apart(s3_settings, committed_db, monkeypatch):
    from datetime import timedelta

    import botocore.auth

    real = botocore.auth.get_current_datetime
    with monkeypatch.context() as wrong:
        wrong.setattr(
            "botocore.auth.get_current_datetime",
            lambda *args, **more: real(*args, **more) - timedelta(minutes=20),
        )
        status, text = run("check")
        assert (status, steps(text, "✗")) == (1, ["put"]) and "this machine's clock" in text
    s3_settings.S3_REGION = "eu-west-3"  # another setting, so another client
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    status, text = run("check")
    assert (status, steps(text, "✗")) == (1, ["put"]) and "AWS_SECRET_ACCESS_KEY" in text


@pytest.mark.parametrize(
    ("there", "says"), [("Mon, 01 Jan 2001 00:00:30 GMT", 30), ("Mon, 01 Jan 2001 00:00:05 GMT", 0)]
)
def test_clocks_that_differ_by_half_a_signature_are_noticed(there, says):
    headers = Message()
    headers["Date"] = there
    assert checking._skew(headers, 978307200.0) == says


def test_a_portal_that_does_not_run_is_named(committed_db, settings, tmp_path):
    settings.STORE_FOLDER, settings.PUBLIC_URL = tmp_path / "store", "http://127.0.0.1:9"
    status, text = run("check")
    assert (status, steps(text, "✗")) == (1, ["get"]) and "Nothing answers" in text
    assert list(settings.STORE_FOLDER.rglob("*")) == []


def test_sendfile_for_an_nginx_that_is_not_there_is_named(site, settings, tmp_path):
    settings.STORE_FOLDER, settings.SENDFILE = tmp_path / "store", "nginx"
    status, text = run("check")
    assert (status, steps(text, "✗")) == (1, ["get"]) and "must be nginx's address" in text


def test_an_nginx_that_gives_the_folder_to_anyone_is_named(nginx, settings):
    nginx.reload(lambda text: text.replace("internal;", ""))
    status, text = run("check")
    assert (status, steps(text, "✗")) == (1, ["no signature refused"]) and "_weights" in text
    assert list(settings.STORE_FOLDER.rglob("*")) == []


def test_a_probe_opens_nothing_but_itself(client, settings, committed_db, tmp_path):
    from portal.delivery.probes import sign_probe

    settings.STORE_FOLDER = tmp_path / "store"
    handed, probe = hand_out(CONTENT), checking.PREFIX + "0" * 32
    store().put_bytes(probe, b"probe")
    url = sign_probe(probe, Stored(5), 60).removeprefix(settings.PUBLIC_URL)
    assert client.get(url).getvalue() == b"probe"
    query = url.partition("?")[2]
    for path in (
        f"/d/check/{probe[:-1]}1",
        f"/d/0/0/{probe}",
        f"/d/check/{handed.shard.store_key}",
    ):
        assert client.get(f"{path}?{query}").status_code in (403, 404)


def test_what_is_stored_is_compared_with_what_was_signed(s3_settings, s3, committed_db):
    handed = hand_out(CONTENT)
    name = handed.shard.checkpoint.name
    assert run("verify", name)[0] == 0
    type(handed.shard).objects.update(store_version="")
    s3.put_object(
        Bucket=s3_settings.S3_BUCKET, Key=handed.shard.store_key, Body=CONTENT[:-1] + b"!"
    )
    status, text = run("verify", name)
    assert status == 1 and "weights.bin in the store" in text
    type(handed.shard).objects.update(store_version="nonsense")
    status, text = run("verify", name)
    assert status == 1 and "weights.bin cannot be read" in text
    assert run("verify", "llama/none@1")[0] == 2
