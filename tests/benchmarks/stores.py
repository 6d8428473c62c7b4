"""How fast a file is published to S3, beside boto3's own upload: `python -m tests.benchmarks.stores`.

Both send the same hot file to one gateway on this machine, in turn, in parts of the same size, eight
at a time; boto3's compares nothing afterwards. The gateway takes its share of the same cores.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from boto3.s3.transfer import TransferConfig

from portal.storage.parts import SMALLEST_PART
from portal.storage.s3 import AT_ONCE, S3Store
from portal.storage.stores import Bucket
from tests.servers import rgw


def main() -> None:
    """Measure and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cluster, gateway = rgw.start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": gateway.access_key,
        "AWS_SECRET_ACCESS_KEY": gateway.secret_key,
    }
    seconds: dict[str, list[float]] = {"put_file": [], "upload_file": []}
    try:
        with tempfile.NamedTemporaryFile() as file:
            for _ in range(given.mib):
                file.write(os.urandom(1 << 20))
            file.flush()
            store = S3Store(Bucket("weights", endpoint=gateway.url))
            client = store._client
            client.create_bucket(Bucket="weights")
            same = TransferConfig(
                multipart_chunksize=SMALLEST_PART,
                multipart_threshold=SMALLEST_PART + 1,
                max_concurrency=AT_ONCE,
            )
            for _ in range(given.rounds):
                for name, put in (
                    ("put_file", lambda: store.put_file("a", Path(file.name))),
                    (
                        "upload_file",
                        lambda: client.upload_file(file.name, "weights", "a", Config=same),
                    ),
                ):
                    started = time.perf_counter()
                    put()
                    seconds[name].append(time.perf_counter() - started)
                    store.delete("a")
    finally:
        cluster.stop()
    rate = {name: given.mib / statistics.median(taken) for name, taken in seconds.items()}
    for name, each in rate.items():
        print(f"{name}: {each:.0f} MiB/s (median of {given.rounds})")
    print(f"ratio: {rate['put_file'] / rate['upload_file']:.2f}")


if __name__ == "__main__":
    main()
