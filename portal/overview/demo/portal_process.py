"""A portal of the story's own: its data folder, its site and its worker, as real processes."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from django.conf import settings

STARTS_WITHIN = 30


class Portal:
    """A portal with a data folder of its own, on a free port of the loopback address."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = data / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WEIGHBRIDGE_")}
        self.environment = kept | {
            "WEIGHBRIDGE_DATA": str(data),
            "WEIGHBRIDGE_URL": self.url,
            # whoever kills the worker need not wait long until its check is taken over
            "WEIGHBRIDGE_CHECK_LEASE_SECONDS": "10",
            "PYTHONUNBUFFERED": "1",
        }

    def command(
        self, *arguments: str, extra: dict[str, str] | None = None, data: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a `manage.py` command to its end."""
        environment = self.environment | (extra or {})
        if data:
            environment["WEIGHBRIDGE_DATA"] = str(data)
        return subprocess.run(
            [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a `manage.py` command that stays, in a process group of its own."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._running[name]

    def start_site(self) -> None:
        """Start the site and wait until it answers.

        Raises:
            RuntimeError: it does not answer in time; the message holds the end of its log.
        """
        process = self.start("serve", "serve", "--port", str(self.port))
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until and process.poll() is None:
            try:
                with urllib.request.urlopen(self.url, timeout=2):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        log = (self._logs / "serve.log").read_text(errors="replace")
        raise RuntimeError(f"the site did not start: {log[-800:]}")

    def revive(self, name: str, *arguments: str) -> bool:
        """Start a command again if it has ended; return whether that was needed."""
        if self._running[name].poll() is None:
            return False
        self.start(name, *arguments)
        return True

    def stop(self) -> None:
        """Ask every process to end, then make sure that it did."""
        for process in self._running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()

    def wait(self) -> None:
        """Wait until the site ends or somebody interrupts."""
        self._running["serve"].wait()


def password() -> str:
    """Draw a password for somebody in the story."""
    return secrets.token_urlsafe(12)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
