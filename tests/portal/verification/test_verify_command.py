"""`manage.py verify`, where it looks into the catalogue."""

import os
import subprocess
import sys
from pathlib import Path

MANAGE = Path(__file__).parents[3] / "manage.py"


def test_a_catalogue_that_cannot_be_used_is_one_sentence_and_2(tmp_path):
    (tmp_path / "data" / "migrate.lock").mkdir(parents=True)  # cannot be opened as a file
    done = subprocess.run(
        [sys.executable, MANAGE, "verify", tmp_path, "--checkpoint", "llama/7b@1"],
        capture_output=True,
        text=True,
        env=os.environ | {"WEIGHBRIDGE_DATA": str(tmp_path / "data")},
    )
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"The catalogue in {tmp_path / 'data'} cannot be used: ")
