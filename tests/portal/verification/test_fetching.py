import http.server
import threading

import pytest

from portal.verification import fetching
from portal.verification.fetching import FetchError, fetch, is_public

CONTENT = bytes(range(256)) * 100


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/a.bin":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def private(settings):
    settings.FETCH_PRIVATE_ADDRESSES = True


def get(url, folder, limit=10**6):
    return fetch(url, folder / "a.bin", limit=limit, progress=lambda piece: None)


def test_a_file_is_fetched(site, private, tmp_path):
    assert get(f"{site}/a.bin", tmp_path) == len(CONTENT)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_redirect_is_followed(site, private, tmp_path):
    assert get(f"{site}/to?/a.bin", tmp_path) == len(CONTENT)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_private_address_is_refused(tmp_path, host):
    with pytest.raises(FetchError, match="is not a public address"):
        get(f"http://{host}:1/a.bin", tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_a_redirect_to_a_private_address_is_refused(site, tmp_path, monkeypatch):
    seen = []

    def first_is_public(address):
        seen.append(address)
        return len(seen) == 1 or is_public(address)

    monkeypatch.setattr(fetching, "is_public", first_is_public)
    with pytest.raises(FetchError, match=r"127\.0\.0\.1 is not a public address"):
        get(f"{site}/to?{site}/a.bin", tmp_path)
    assert len(seen) == 2


@pytest.mark.parametrize(
    "address",
    (
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"),
        "2002:a00:1::",
    ),
)
def test_no_address_of_a_network_of_ours_is_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/none", "answered 404"),
        ("/to?ftp://x.example/a", "only http and https"),
        ("/to?http://[", "not an address"),
        ("/to?/cut", "of 51,200 bytes"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_a_sentence(site, private, tmp_path, path, says):
    with pytest.raises(FetchError, match=says):
        get(site + path, tmp_path)


def test_redirects_end(site, private, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "REDIRECTS", 0)
    with pytest.raises(FetchError, match="redirects more than"):
        get(f"{site}/to?/a.bin", tmp_path)


@pytest.mark.parametrize("path", ["/a.bin", "/endless"])
def test_no_more_than_the_limit_is_fetched(site, private, tmp_path, path):
    with pytest.raises(FetchError, match="left"):
        get(site + path, tmp_path, limit=1000)


def test_a_server_that_sends_too_slowly_is_left(site, private, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "SLOWEST", 10**15)
    monkeypatch.setattr(fetching, "GRACE", 0)
    with pytest.raises(FetchError, match="too slowly"):
        get(f"{site}/a.bin", tmp_path)
