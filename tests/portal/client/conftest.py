"""A portal of the tests' own, as real processes; and a server that lies, for what no portal does."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from portal.client.site import Site
from portal.overview.demo.portal_process import Portal

ROOT = Path(__file__).parents[3]
LEAF = 4 << 20
NAME = "llama/7b@1"
BIG, SMALL, EMPTY, DEEP = "big.dat", "small.txt", "empty", "sub/deep.dat"
SIZES = {BIG: 3 * LEAF + 1234, SMALL: 77, EMPTY: 0, DEEP: LEAF + 1}


def fill(folder: Path) -> Path:
    for number, (name, size) in enumerate(SIZES.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(size))
    return folder


@dataclass
class Live:
    """A portal that serves one checkpoint, the official files with their manifest, and a token."""

    portal: Portal
    official: Path
    token: str
    key: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a grantee's shell holds; its data folder knows no key."""
        return {
            **self.portal.environment,
            "WEIGHBRIDGE_PORTAL": self.portal.url,
            "WEIGHBRIDGE_TOKEN": self.token,
            "WEIGHBRIDGE_DATA": str(self.portal.data / "nobody"),
            "PYTHONPATH": str(ROOT),
        }

    def repair(self, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
        """Run `python -m portal.client repair` as a grantee does."""
        environment = self.environment | options.pop("extra", {})
        return subprocess.run(
            self.command(*arguments),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: object) -> list[str]:
        given = [*map(str, arguments), "--trusted-key", str(self.key)]
        return [sys.executable, "-m", "portal.client", "repair", *given]

    def downloads(self) -> list[str]:
        """The lines of the site's log about files that were handed over."""
        lines = (self.portal.data / "logs" / "serve.log").read_text().splitlines()
        return [line for line in lines if " GET /d/" in line]


def run(portal: Portal, *arguments: str, **extra) -> str:
    done = portal.command(*arguments, **extra)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    portal = Portal(folder / "portal")
    official = fill(folder / "official")
    run(portal, "publish", str(official), NAME, "--manifest-out", str(official))
    run(
        portal,
        *("createsuperuser", "--noinput", "--email", "reviewer@lab.example"),
        extra={"DJANGO_SUPERUSER_PASSWORD": "weighbridge-test"},
    )
    run(portal, *_grant("grantee@uni.example", NAME))
    token = run(portal, "token", "grantee@uni.example", "--scope", "download")
    portal.start_site()
    yield Live(portal, official, token, portal.data / "keys" / "release.pub.pem")
    portal.stop()


def _grant(email: str, name: str) -> list[str]:
    rest = ["--until", "2099-01-01", "--reason", "Tests.", "--by", "reviewer@lab.example"]
    return ["grant", email, name, *rest]


grant_command = _grant


@pytest.fixture
def copy(live, tmp_path):
    """A copy of the checkpoint, to be spoiled."""
    return shutil.copytree(live.official, tmp_path / "copy")


def tree(folder: Path) -> dict[str, bytes]:
    """All files below ``folder`` by name, drafts included."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@dataclass
class Liar:
    """A portal-like server on the loopback address, whose file answers a test may spoil.

    ``spoil`` gets the path, the span that was asked for and the right bytes; it returns what is
    sent instead, or an integer: the status of a refusal.
    """

    official: Path
    spoil: object = None
    ranges: bool = True
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    issued: int = 0
    tokens_seen: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    listed: Path | None = None

    def catalogue(self) -> bytes:
        """What it says to publish under ``NAME``: the manifest in ``listed``."""
        sides = [*sorted(self.listed.glob(".weighbridge/*")), self.listed / "model.sig"]
        files = [
            {
                "path": str(path.relative_to(self.listed)),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "url": f"{self.url}/m/0/{path.relative_to(self.listed)}",
            }
            for path in sides
        ]
        entry = {"name": NAME, "revision": 1, "manifest": files}
        return json.dumps({"checkpoints": [entry], "next": None}).encode()

    def file(self, path: str) -> bytes:
        return (self.official / path).read_bytes()


@contextmanager
def lying(official: Path):
    liar = Liar(official)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, body=b"", kind="application/json", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            liar.tokens_seen.append((self.path, self.headers.get("Authorization")))
            wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            liar.issued += 1
            files = [
                {"path": path, "url": f"{liar.url}/f/{liar.issued}/{path}"}
                for path in wanted["shards"]
            ]
            self.answer(201, json.dumps({"files": files}).encode())

        def do_GET(self):
            liar.tokens_seen.append((self.path, self.headers.get("Authorization")))
            if self.path.startswith("/api/v1/checkpoints"):
                self.answer(200, liar.catalogue())
                return
            _, kind, _, path = unquote(urlsplit(self.path).path).split("/", 3)
            if kind == "m":
                self.answer(200, (liar.listed / path).read_bytes(), "application/octet-stream")
                return
            data = liar.file(path)
            start, end, status, headers = 0, len(data), 200, {}
            if liar.ranges and self.headers.get("Range"):
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                start, end, status = int(first), int(last) + 1, 206
                headers["Content_Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            liar.asked.append((path, start, end))
            body = data[start:end]
            if liar.spoil:
                body = liar.spoil(path, start, body)
                if isinstance(body, int):
                    self.answer(body, b"The grant was revoked: Over.\n", "text/plain")
                    return
            headers |= {"ETag": '"one"', "Connection": "close"}
            self.close_connection = True
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that was killed, or has heard enough, hangs up; that is no error here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        liar.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield liar
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def signed(tmp_path_factory):
    """The same files, described and signed here: no portal runs."""
    from tests.verifier.conftest import make_signer, publish

    folder = tmp_path_factory.mktemp("signed")
    return publish(fill(folder / "official"), folder / "work", make_signer(folder), name=NAME)


@pytest.fixture
def liar(signed):
    with lying(signed.folder) as made:
        yield made


def site(liar: Liar, **options) -> Site:
    return Site(liar.url, token="hf_test", sleep=lambda seconds: None, **options)


os.environ.setdefault("no_proxy", "127.0.0.1,localhost")
