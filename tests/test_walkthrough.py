"""The whole story, told once by the command that a stranger runs first. Read this before the rest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STEPS = [
    "made a LLaMA-architecture checkpoint in Meta's layout",
    "made the same weights in Hugging Face layout",
    "Published llama/7b-meta@1",
    "Published llama/7b-hf@1",
    "started the site",
    "signed up and confirmed the address",
    "filled the form, accepted the terms and submitted request 1",
    "the reviewer approved it in Django admin",
    "the applicant got 20 signed URLs",
    "downloaded 20 files over HTTP",
    "identical, exit 0, both copies",
    "flipped: damaged",
    "the worker ran the Hugging Face copy: identical, inference agrees",
    "two layers swapped: derived, inference disagrees",
    "an expired URL: refused",
    "one character changed: refused",
    "a revoked grant: refused",
    "The audit chain holds",
    "a row edited with the trigger dropped: found",
    "every step held",
]


@pytest.mark.slow
def test_publish_apply_approve_download_verify_revoke(tmp_path):
    told = subprocess.run(
        [sys.executable, ROOT / "manage.py", "demo"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert told.returncode == 0, told.stdout + told.stderr
    seen = re.findall(r"^✓ (.*)$", told.stdout, re.M)
    assert len(seen) == len(STEPS)
    for line, step in zip(seen, STEPS, strict=True):
        assert step in line
    # Celery's process library may leave an empty folder of its own when a worker is ended
    left = [path for path in tmp_path.iterdir() if not path.name.startswith("pymp-")]
    assert left == [], "the demo leaves nothing behind"
