"""Real servers for the portal's tests: the portal itself, nginx in front, Ceph's S3 gateway."""

import hashlib
import itertools
from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.utils.timezone import now

from portal.access import decisions
from portal.access.models import Grant
from portal.catalog.models import Shard
from portal.delivery.issuing import issue
from portal.storage.stores import Bucket, store
from tests.conftest import make_person
from tests.portal.access.rows import checkpoint_row
from tests.servers import nginx as nginx_server
from tests.servers import rgw
from tests.servers.site import Site

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


@pytest.fixture
def site(committed_db, settings):
    """The portal, with a database of this test's own."""
    with Site() as running:
        settings.PUBLIC_URL = running.url
        yield running


@pytest.fixture
def nginx(site, settings, tmp_path):
    """nginx in front of the portal, with a store of this test's own."""
    if reason := nginx_server.why_not():
        pytest.skip(reason)
    settings.STORE_FOLDER = tmp_path / "store"
    settings.STORE_FOLDER.mkdir(mode=0o700)
    settings.SENDFILE = "nginx"
    with nginx_server.Nginx(site.port, settings.STORE_FOLDER) as running:
        settings.PUBLIC_URL = running.url
        yield running


@dataclass(frozen=True)
class Handed:
    """A grant of a checkpoint with one shard, and the URL that was issued for it."""

    grant: Grant
    shard: Shard
    url: str


def hand_out(content: bytes, path: str = "weights.bin") -> Handed:
    """Keep a shard in the store of the settings, grant it to somebody and issue its URL."""
    at, checkpoint = now(), checkpoint_row()
    key = f"checkpoints/{checkpoint.name}/{path}"
    stored = store().put_bytes(key, content)
    shard = Shard.objects.create(
        checkpoint=checkpoint,
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        store_key=key,
        store_version=stored.version,
    )
    reviewer, grantee = make_person("r@lab.example"), make_person("g@uni.example")
    grant = decisions.grant_directly(
        grantee, checkpoint, by=reviewer, reason="R.", at=at, until=at + timedelta(days=1)
    )
    _, (file,) = issue(grantee, checkpoint, at=at)
    return Handed(grant, shard, file.url)
