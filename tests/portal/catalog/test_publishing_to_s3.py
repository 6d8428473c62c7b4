"""`manage.py publish` straight into a bucket, killed on its way and run again."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import wait_for
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SMALL, LARGE = 3 << 20, 36 << 20  # one part, and three
STALL = SMALL + (20 << 20)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files"
    path.mkdir()
    (path / "a.dat").write_bytes(random.Random(1).randbytes(SMALL))
    (path / "b.dat").write_bytes(random.Random(2).randbytes(LARGE))
    return path


@pytest.fixture
def manage(bucket, tmp_path):
    """Start `manage.py` in a portal of its own, its store reached through ``proxy``."""

    def start(proxy, *arguments):
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            env=os.environ
            | {
                "WEIGHBRIDGE_DATA": str(tmp_path / "portal"),
                "WEIGHBRIDGE_STORE": "s3",
                "WEIGHBRIDGE_S3_BUCKET": bucket.name,
                "WEIGHBRIDGE_S3_ENDPOINT": proxy.url,
            },
        )

    return start


def test_a_publish_that_was_killed_goes_on_and_its_copy_verifies(
    manage, bucket, folder, gateway, s3
):
    publish = ("publish", str(folder), "notes/large@1")
    with Proxy(gateway.port, stall=STALL) as proxy:
        process = manage(proxy, *publish)
        wait_for("half of it", lambda: proxy.sent >= STALL, seconds=120)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (upload,) = s3.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    parts = s3.list_parts(Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"])
    there = sum(part["Size"] for part in parts.get("Parts", ()))
    with Proxy(gateway.port) as proxy:
        process = manage(proxy, *publish)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "Published notes/large@1: 2 files" in said, said
        assert LARGE - there <= proxy.sent < LARGE - there + SMALL, "what was there stays there"
        process = manage(proxy, "store", "verify", "notes/large@1")
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "is what was signed" in said, said
        found = s3.list_object_versions(Bucket=bucket.name)
        assert "DeleteMarkers" not in found
        assert len({each["Key"] for each in found["Versions"]}) == len(found["Versions"])
        big = next(each for each in found["Versions"] if each["Key"].endswith("b.dat"))
        s3.delete_object(Bucket=bucket.name, Key=big["Key"], VersionId=big["VersionId"])
        process = manage(proxy, "store", "verify", "notes/large@1")
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 1 and "b.dat cannot be read from the store" in said, said
