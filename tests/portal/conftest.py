"""Real stores for the portal's tests: Ceph's S3 gateway, started once, and buckets in it."""

import itertools

import pytest

from portal.storage.stores import Bucket
from tests.servers import rgw

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def gateway():
    """A running S3 gateway."""
    if reason := rgw.why_not():
        pytest.skip(reason)
    cluster, running = rgw.start()
    yield running
    cluster.stop()


@pytest.fixture
def keys(gateway, monkeypatch):
    """The gateway's credentials, where boto3 looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", gateway.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", gateway.secret_key)


@pytest.fixture
def s3(gateway, keys):
    """boto3's own client, by which tests look at what is in a bucket."""
    import boto3
    from botocore.config import Config

    client = boto3.session.Session().client(
        "s3",
        region_name="us-east-1",
        endpoint_url=gateway.url,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    yield client
    client.close()


@pytest.fixture
def bucket(gateway, s3):
    """An empty bucket that keeps versions."""
    name = f"weights-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return Bucket(name, endpoint=gateway.url)


@pytest.fixture
def s3_settings(bucket, settings):
    """The portal's settings for that bucket."""
    settings.STORE, settings.S3_BUCKET, settings.S3_ENDPOINT = "s3", bucket.name, bucket.endpoint
    return settings
