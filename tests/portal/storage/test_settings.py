"""Settings of stores that do not fit stop the program with their name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
S3 = {"STORE": "s3", "S3_BUCKET": "weights"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"SENDFILE": "apache"}, "SENDFILE"),
        ({"STORE": "s3"}, "S3_BUCKET"),
        (S3 | {"S3_ENDPOINT": "127.0.0.1:7480"}, "S3_ENDPOINT"),
        (S3 | {"S3_PUBLIC_ENDPOINT": "https://s3.lab.example/weights"}, "S3_PUBLIC_ENDPOINT"),
        (S3 | {"S3_ADDRESSING": "auto"}, "S3_ADDRESSING"),
        ({"CLOUDFRONT_URL": "https://d1.cloudfront.net"}, "CLOUDFRONT_URL"),
        (S3 | {"CLOUDFRONT_URL": "https://d1.cloudfront.net"}, "CLOUDFRONT_KEY_ID"),
        (
            S3 | {"CLOUDFRONT_URL": "https://d1.cloudfront.net", "CLOUDFRONT_KEY_ID": "K"},
            "CLOUDFRONT_KEY_FILE",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path, given, named):
    environment = os.environ | {"WEIGHBRIDGE_DATA": str(tmp_path)}
    environment |= {f"WEIGHBRIDGE_{name}": value for name, value in given.items()}
    done = subprocess.run(
        [sys.executable, "-c", "import portal.settings"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode != 0
    assert f"WEIGHBRIDGE_{named} " in done.stderr.splitlines()[-1]
