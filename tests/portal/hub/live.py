"""A real portal behind the cutting proxy, and clients of other versions in environments of their own."""

import json
import os
import random
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from portal.overview.demo.portal_process import Portal
from tests.portal.client.conftest import grant_command, run
from tests.portal.hub.cutting import Cutting

ROOT = Path(__file__).parents[3]
HERE = version("huggingface_hub")
HUBS = ("0.36.2", "1.33.0", HERE)
HF, META, FILES = "llama/tiny-hf", "llama/tiny-meta", "files/big"
BIG = 24 << 20


@dataclass
class Hub:
    """A portal that publishes the same weights in both layouts, and one large file."""

    portal: Portal
    proxy: Cutting
    official: dict[str, Path]
    tokens: dict[str, str] = field(default_factory=dict)

    def environment(self, home: Path, who: str = "grantee") -> dict[str, str]:
        """What is in the shell of somebody who uses the portal instead of the Hub."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        given = {"HF_ENDPOINT": self.proxy.url, "HF_HOME": str(home / "hf-home")}
        if who in self.tokens:
            given["HF_TOKEN"] = self.tokens[who]
        quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_COLOR": "1", "no_proxy": "127.0.0.1"}
        return kept | given | quiet

    def asked(self, what: str) -> list[list[str]]:
        """The lines of the site's log with ``what`` in the path: method, path, status, bytes."""
        lines = (self.portal.data / "logs" / "serve.log").read_text().splitlines()
        return [line.split()[-5:-1] for line in lines if what in line]


@dataclass(frozen=True)
class Client:
    """One version of huggingface_hub, as `hf` and as a library."""

    version: str
    folder: Path

    def hf(self, *arguments, env, ok=True) -> str:
        """Run the command line; return all that it printed."""
        return _run([self.folder / "hf", *arguments], env, ok)

    def python(self, code: str, *arguments, env, ok=True):
        """Run a few lines with `arguments` in sys.argv; return what they printed, as JSON."""
        given = f"import json, sys\nfrom huggingface_hub import HfApi\n{code}"
        out = _run([self.folder / "python", "-W", "ignore", "-c", given, *arguments], env, ok)
        return json.loads(out.splitlines()[-1]) if ok else out

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".")[:2])


def _run(command, env, ok) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    out = done.stderr + done.stdout
    assert (done.returncode == 0) == ok, out
    return out


def install(wanted: str, cache: Path) -> Client:
    """Return a client of this version, installed once into ``cache``."""
    if wanted == HERE:
        return Client(wanted, Path(sys.executable).parent)
    folder = cache / f"huggingface_hub-{wanted}-python{sys.version_info[0]}.{sys.version_info[1]}"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [folder / "bin" / "pip", "install", "-q", f"huggingface_hub=={wanted}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"huggingface_hub {wanted} cannot be installed: {done.stderr[-300:]}")
        (folder / "done").touch()
    return Client(wanted, folder / "bin")


def fill(folder: Path) -> dict[str, Path]:
    """Make the checkpoints to be published."""
    for layout in ("hf", "meta"):
        subprocess.run(
            [sys.executable, "-m", "inference_check.synthetic", folder / layout]
            + ["--layout", layout, "--parts", "2", "--seed", "7"],
            check=True,
            cwd=ROOT,
            capture_output=True,
        )
    big = folder / "big"
    (big / "notes").mkdir(parents=True)
    (big / "large.dat").write_bytes(random.Random(3).randbytes(BIG))
    (big / "notes" / "read me.txt").write_text("A name with a space, in a folder.\n")
    return {HF: folder / "hf", META: folder / "meta", FILES: big}


def publish(portal: Portal, official: dict[str, Path]) -> dict[str, str]:
    """Publish, make people and their grants; return their tokens."""
    password = {"DJANGO_SUPERUSER_PASSWORD": "weighbridge-test"}
    reviewer = ("createsuperuser", "--noinput", "--email", "reviewer@lab.example")
    run(portal, *reviewer, extra=password)
    for name, folder in official.items():
        run(portal, "publish", str(folder), f"{name}@1", "--manifest-out", str(folder))
        run(portal, *grant_command("grantee@uni.example", f"{name}@1"))
    scopes = {"grantee": "download", "stranger": "download", "reviewer": "review,read"}
    place = {"grantee": "uni", "stranger": "other", "reviewer": "lab"}
    return {
        who: run(portal, "token", f"{who}@{place[who]}.example", "--scope", scope)
        for who, scope in scopes.items()
    }
