"""Downloads that are cut in the middle go on under the same URL, with the tools people have.

The store's signatures live two seconds here, and each connection is cut after three.
"""

import json
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from urllib.error import HTTPError

import pytest
from django.utils.timezone import now

from portal.access import decisions
from portal.audit.models import Event
from tests.portal.conftest import hand_out
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.slow
CONTENT = random.Random(2).randbytes(3_000_000)
CUTS = (700_000, 900_000)
SIGNATURE_SECONDS = 2

PYTHON = """
import os, sys, urllib.request
url, target = sys.argv[1:]
have = os.path.getsize(target) if os.path.exists(target) else 0
request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"})
with urllib.request.urlopen(request, timeout=10) as answer, open(target, "ab") as file:
    assert answer.status == 206, answer.status
    assert answer.headers["Content-Range"].startswith(f"bytes {have}-"), answer.headers
    while piece := answer.read1(65536):
        file.write(piece)
sys.exit(os.path.getsize(target) != 3_000_000)
"""
# each one tries once and ends; what it has stays for the next
TOOLS = {
    "curl": ["curl", "-sSfL", "-C", "-", "-o", "{file}", "{url}"],
    "wget": ["wget", "-q", "-c", "--tries=1", "-O", "{file}", "{url}"],
    "aria2c": ["aria2c", "-q", "-c", "-x1", "--max-tries=1", "--retry-wait=0", "-k1M"]
    + [
        "--file-allocation=none",
        "--no-conf",
        "-d",
        "{folder}",
        "-o",
        "{name}",
        "{url}",
    ],
    "python": [sys.executable, "-c", PYTHON, "{url}", "{file}"],
}


@pytest.fixture(params=TOOLS)
def tool(request):
    if not shutil.which(TOOLS[request.param][0]):
        pytest.skip(f"{request.param} is not installed (apt install {request.param})")
    return request.param


@contextmanager
def s3(request):
    """The portal before a bucket, which is reached through a proxy that cuts."""
    gateway, settings = request.getfixturevalue("gateway"), request.getfixturevalue("s3_settings")
    request.getfixturevalue("site")
    settings.STORE_URL_SECONDS = SIGNATURE_SECONDS
    with Proxy(gateway.port, CUTS, SIGNATURE_SECONDS + 1) as proxy:
        settings.S3_PUBLIC_ENDPOINT = proxy.url
        yield proxy


@contextmanager
def nginx(request):
    """The portal behind nginx, reached through a proxy that cuts."""
    running, settings = request.getfixturevalue("nginx"), request.getfixturevalue("settings")
    with Proxy(running.port, CUTS, SIGNATURE_SECONDS + 1) as proxy:
        settings.PUBLIC_URL = proxy.url
        yield proxy


def run(tool, url, file):
    words = {"url": url, "file": str(file), "folder": str(file.parent), "name": file.name}
    command = [part if part == PYTHON else part.format(**words) for part in TOOLS[tool]]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("store", [s3, nginx], ids=["rgw", "nginx"])
def test_a_download_goes_on_in_the_middle_after_its_signature_ended(request, store, tool, tmp_path):
    file = tmp_path / "got" / "weights.bin"
    file.parent.mkdir()
    with store(request) as proxy:
        handed, sizes, status = hand_out(CONTENT), [0], 1
        while status and len(sizes) <= len(CUTS) + 1:
            status = run(tool, handed.url, file).returncode
            sizes.append(file.stat().st_size)
        assert not proxy.cuts, "the connection was cut twice"
        assert file.read_bytes() == CONTENT
        assert sizes == sorted(set(sizes))
        # aria2 goes on by itself once; the others end, and go on when they are called again
        assert tool == "aria2c" or len(sizes) == 4
        assert proxy.received < len(CONTENT) * 1.5, "what was there is not fetched again"
    if store is s3:
        issued = Event.objects.filter(action="store_url.issued")
        asked = 2 if tool == "aria2c" else 3  # it may try the old signature once, and end
        assert issued.count() >= asked, "each time the portal was asked"


def test_aria2_fetches_ranges_at_once_and_goes_on(request, tmp_path):
    if not shutil.which("aria2c"):
        pytest.skip("aria2c is not installed (apt install aria2)")
    with s3(request):
        handed = hand_out(CONTENT)
        command = ["aria2c", "-q", "-x8", "-s8", "-k1M", "--max-tries=3", "--retry-wait=1"]
        command += ["--no-conf", "-d", str(tmp_path), "-o", "w.bin", handed.url]
        subprocess.run(command, check=True, timeout=60)
        assert (tmp_path / "w.bin").read_bytes() == CONTENT
        issued = Event.objects.filter(action="store_url.issued")
        assert issued.count() >= 3, "each connection asked the portal"
        assert {json.loads(event.detail)["shard"] for event in issued} == {handed.shard.pk}


class Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an answer."""

    def redirect_request(self, *_):
        return None


def where_to(url, method="GET"):
    """Return the status of the portal's answer, its text, and where it leads to."""
    opener = urllib.request.build_opener(Stay)
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, dict(answer.headers), ""
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers.get("Location", "")


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


def test_revoking_shuts_the_portal_at_once_and_the_store_with_its_signature(s3_settings, site):
    s3_settings.STORE_URL_SECONDS = SIGNATURE_SECONDS
    handed = hand_out(CONTENT)
    status, _, at_the_store = where_to(handed.url)
    assert status == 302 and status_of(at_the_store) == 200
    by = handed.grant.decision.by
    decisions.revoke(handed.grant, by=by, reason="Project ended.", at=now())
    status, said, nowhere = where_to(handed.url)
    assert (status, nowhere) == (403, "") and "Project ended." in said
    time.sleep(SIGNATURE_SECONDS + 1)
    assert status_of(at_the_store) == 403


def test_a_url_leads_to_the_version_that_was_published(s3_settings, site, request):
    handed = hand_out(CONTENT)
    request.getfixturevalue("s3").put_object(
        Bucket=s3_settings.S3_BUCKET, Key=handed.shard.store_key, Body=b"other"
    )
    with urllib.request.urlopen(handed.url, timeout=10) as answer:
        assert answer.read() == CONTENT
        assert answer.headers["Content-Disposition"] == 'attachment; filename="weights.bin"'


def test_head_is_answered_by_the_portal_with_what_get_will_send(s3_settings, site):
    handed = hand_out(CONTENT)
    status, headers, _ = where_to(handed.url, "HEAD")
    assert (status, headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert headers["Accept-Ranges"] == "bytes" and "ETag" not in headers
    assert not Event.objects.filter(action="store_url.issued").exists()
