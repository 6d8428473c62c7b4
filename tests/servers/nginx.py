"""Debian's nginx with the configuration that we publish, on a free port and other folders."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.servers import end, free_port, listens, wait_for

PUBLISHED = Path(__file__).parents[2] / "docs" / "deploy" / "nginx.conf"


def why_not() -> str:
    """Say why it cannot be started here; nothing where it can."""
    return "" if shutil.which("nginx") else "nginx is not installed (apt install nginx-light)"


def _workers(master: int) -> set[str]:
    return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())


class Nginx:
    """A running nginx in front of a portal; a context manager."""

    def __init__(self, portal: int, store: Path, user: str = "root") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="weighbridge-nginx-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.folder / "weighbridge.log"
        text = PUBLISHED.read_text()
        for ours, theirs in (
            ("user weighbridge;", f"user {user};" if os.geteuid() == 0 else ""),
            ("worker_processes auto", "worker_processes 1"),
            ("/run/nginx.pid", f"{self.folder}/nginx.pid"),
            ("/var/log/nginx/", f"{self.folder}/"),
            ("server 127.0.0.1:8000;", f"server 127.0.0.1:{portal};"),
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
            ("/srv/weighbridge/store/", f"{store}/"),
            ("http {", f"http {{ {self._temporary()}"),
        ):
            assert text.count(ours) >= 1, f"{PUBLISHED} has no {ours!r}"
            text = text.replace(ours, theirs)
        (self.folder / "nginx.conf").write_text(text)

    def _temporary(self) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        return " ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)

    def __enter__(self) -> "Nginx":
        arguments = ["-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        subprocess.run(["nginx", "-t", *arguments], check=True, capture_output=True, timeout=20)
        self._process = subprocess.Popen(
            ["nginx", *arguments, "-g", "daemon off;"], start_new_session=True
        )
        try:
            wait_for("nginx", lambda: listens(self.port), seconds=20)
        except TimeoutError:
            self.__exit__()
            raise
        return self

    def reload(self, change: Callable[[str], str]) -> None:
        """Go on with a changed configuration."""
        path = self.folder / "nginx.conf"
        path.write_text(change(path.read_text()))
        old = _workers(self._process.pid)
        self._process.send_signal(signal.SIGHUP)
        wait_for("the new worker", lambda: not old & _workers(self._process.pid), seconds=20)

    def __exit__(self, *_: object) -> None:
        end(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)
