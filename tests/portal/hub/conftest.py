"""A repository that lies in the store, and requests as the Hub's clients send them."""

import hashlib
import json

import pytest

from portal.accounts import tokens
from portal.catalog.models import Shard
from portal.hub import listing
from portal.overview.demo.portal_process import Portal
from portal.storage.stores import store
from tests.portal.hub import live
from tests.portal.hub.cutting import cutting

MANIFEST = (".weighbridge/checkpoint.json", "model.sig")


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def add_file(checkpoint, path, content, **fields):
    """Put one more file into a checkpoint."""
    key = f"checkpoints/{checkpoint}/{fields.get('replaced_at', '')}{path}"
    store().put_bytes(key, content)
    return Shard.objects.create(
        checkpoint=checkpoint,
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        store_key=key,
        is_manifest=path in MANIFEST,
        **fields,
    )


def sign(checkpoint, bundle=b"signed"):
    """Add what stands for a signed manifest; whether it holds is the client's to check."""
    names = {"config.json": {"git_sha1": git_sha1(b"{}\n")}, "a.bin": {"git_sha1": "0" * 40}}
    add_file(checkpoint, MANIFEST[0], json.dumps({"files": names}).encode())
    return add_file(checkpoint, MANIFEST[1], bundle)


@pytest.fixture
def repository(checkpoint):
    """`llama/7b`: `a.bin`, `config.json`, `sub dir/b.bin` and the manifest."""
    add_file(checkpoint, "sub dir/b.bin", b"deep")
    sign(checkpoint)
    listing.forget()
    yield checkpoint
    listing.forget()


@pytest.fixture
def commit(repository):
    return hashlib.sha256(b"signed").hexdigest()[:40]


@pytest.fixture
def headers_of(at):
    """The Authorization header of a person, with a token for ``scopes``."""

    def make(person, *scopes):
        _, secret = tokens.make(person, scopes=scopes or ["download"], by="tests", at=at)
        return {"Authorization": f"Bearer {secret}"}

    return make


@pytest.fixture
def mine(headers_of, applicant):
    """The applicant's own header, for downloading."""
    return headers_of(applicant)


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A real portal, seen through a proxy that can cut a connection."""
    folder = tmp_path_factory.mktemp("hub")
    portal = Portal(folder / "portal")
    with cutting(portal.port) as proxy:
        portal.environment["WEIGHBRIDGE_URL"] = proxy.url
        official = live.fill(folder)
        try:
            tokens_of = live.publish(portal, official)
            portal.start_site()
            yield live.Hub(portal, proxy, official, tokens_of)
        finally:
            portal.stop()


@pytest.fixture
def row(request, record_property):
    """Note which cell of the table this test fills."""
    if "client" in request.fixturenames:
        name, version = "huggingface_hub", request.getfixturevalue("client").version
    else:
        name, version = request.function.client
    record_property("cell", [name, version, request.function.__doc__.splitlines()[0].rstrip(".")])


@pytest.fixture
def env(hub, tmp_path):
    """The grantee's shell, with a cache of its own."""
    return hub.environment(tmp_path)
