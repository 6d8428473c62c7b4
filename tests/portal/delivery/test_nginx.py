"""What lies in a folder, sent by nginx: the configuration that we publish, in front of the portal."""

import http.client
from urllib.parse import urlsplit

import pytest

from portal.access import decisions
from portal.storage.stores import store
from tests.portal.conftest import hand_out
from tests.servers.nginx import Nginx

pytestmark = pytest.mark.slow
CONTENT = bytes(range(250)) * 400


def ask(url, method="GET", **headers):
    """Send the path as it is: clients such as urllib would tidy it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    path = url.partition(parts.netloc)[2]
    connection.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})
    answer = connection.getresponse()
    answer.content = answer.read()
    connection.close()
    return answer


@pytest.fixture
def handed(nginx):
    return hand_out(CONTENT)


@pytest.mark.parametrize(
    ("asked", "status", "span", "content"),
    [
        ("bytes=0-99", 206, "bytes 0-99/100000", CONTENT[:100]),
        ("bytes=-100", 206, "bytes 99900-99999/100000", CONTENT[-100:]),
        ("bytes=99990-", 206, "bytes 99990-99999/100000", CONTENT[-10:]),
        ("bytes=0-9,20-29", 200, None, CONTENT),
        ("items=0-9", 200, None, CONTENT),
    ],
)
def test_ranges_are_answered_as_the_portal_would(handed, asked, status, span, content):
    answer = ask(handed.url, Range=asked)
    assert (answer.status, answer.headers["Content-Range"]) == (status, span)
    assert answer.content == content


def test_a_range_outside_the_file_is_not_satisfiable(handed):
    answer = ask(handed.url, Range="bytes=100000-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */100000")


def test_the_file_comes_under_its_name_and_is_never_shown(handed):
    for method, content in (("GET", CONTENT), ("HEAD", b"")):
        answer = ask(handed.url, method)
        assert (answer.status, answer.content) == (200, content)
        headers = answer.headers
        assert headers["Content-Length"] == "100000"
        assert headers["Content-Type"] == "application/octet-stream"
        assert headers["Content-Disposition"] == 'attachment; filename="weights.bin"'
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "private, no-transform"
        assert "X-Accel-Redirect" not in headers


def test_a_resumed_download_never_mixes_versions(handed):
    etag = ask(handed.url, "HEAD").headers["ETag"]
    assert ask(handed.url, Range="bytes=5-9", If_Range=etag).content == CONTENT[5:10]
    other = ask(handed.url, Range="bytes=5-9", If_Range='"other"')
    assert (other.status, other.content) == (200, CONTENT)
    assert ask(handed.url, If_None_Match=etag).status == 304
    assert ask(handed.url, If_Match='"other"').status == 412


def test_who_is_refused_gets_no_byte_of_the_file(handed, at):
    changed = handed.url[:-1] + ("0" if handed.url[-1] != "0" else "1")
    assert b"was changed" in ask(changed).content
    decisions.revoke(handed.grant, by=handed.grant.decision.by, reason="Project ended.", at=at)
    for headers in ({}, {"Range": "bytes=0-0"}):
        answer = ask(handed.url, **headers)
        assert answer.status == 403 and b"Project ended." in answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/_weights/{key}",
        "//_weights/{key}",
        "/_weights/../_weights/{key}",
        "/%5fweights/{key}",
        "/static/..%2f_weights/{key}",
        "/_weights../secret",
        "/_weights/..%2fsecret",
        "/_weights/%2e%2e/secret",
    ],
)
def test_no_path_leads_around_the_portal(handed, nginx, settings, path):
    (settings.STORE_FOLDER.parent / "secret").write_text("secret")
    answer = ask(nginx.url + path.format(key=handed.shard.store_key))
    assert answer.status in (400, 404)
    assert CONTENT[:100] not in answer.content and answer.content != b"secret"


@pytest.mark.parametrize(
    "path", ["a b.bin", "a%2fb.bin", "what?.bin", "x#y;z=1,&.bin", "gewöhnt.bin", "a\\b'\".bin"]
)
def test_any_name_is_found(nginx, path):
    handed = hand_out(CONTENT, f"sub/{path}")
    answer = ask(handed.url)
    assert (answer.status, answer.content) == (200, CONTENT)


def test_a_file_that_the_store_lost_is_told_in_words(handed):
    store().delete(handed.shard.store_key)
    answer = ask(handed.url)
    assert answer.status == 503 and b"write to the operators" in answer.content


def test_a_file_that_nginx_may_not_read_is_told_in_words(handed, site, settings):
    store().local_path(handed.shard.store_key).chmod(0)
    with Nginx(site.port, settings.STORE_FOLDER, user="www-data") as other:
        answer = ask(other.url + urlsplit(handed.url).path + "?" + urlsplit(handed.url).query)
    assert answer.status == 503 and b"write to the operators" in answer.content


def test_signatures_are_not_in_the_log(handed, nginx):
    ask(handed.url, Range="bytes=0-9")
    line = nginx.log.read_text().splitlines()[-1]
    assert f'GET /d/{handed.grant.pk}/{handed.shard.pk}/weights.bin 206 10 "bytes=0-9"' in line
    assert "signature" not in line and "_weights" not in line
