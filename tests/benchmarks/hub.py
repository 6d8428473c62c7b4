"""How long the site takes to list a repository of 1,000 files for the Hub's clients.

    python -m tests.benchmarks.hub [--files N] [--rounds N]

A real site is asked; the seconds are its own, from its log: from the request's arrival to its answer.
"""

import argparse
import os
import statistics
import tempfile
import urllib.request
from pathlib import Path

from portal.overview.demo.portal_process import Portal

NAME = "bench/many"
PLACES = {
    "info": f"/api/models/{NAME}",
    "tree": f"/api/models/{NAME}/tree/main?recursive=true",
    "tree, expanded": f"/api/models/{NAME}/tree/main?recursive=true&expand=true",
    "refs": f"/api/models/{NAME}/refs",
}


def make(folder: Path, files: int) -> Path:
    """Fill a folder with small files in ten folders."""
    for number in range(files):
        path = folder / f"part-{number % 10}" / f"{number:05}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"number": {number}}}\n')
    return folder


def seconds_of(portal: Portal, place: str, rounds: int) -> list[float]:
    """Ask ``rounds`` times and return the seconds that the site's log says."""
    log = portal.data / "logs" / "serve.log"
    path = place.partition("?")[0]
    before = log.read_text().count(f" GET {path} ")
    for _ in range(rounds):
        with urllib.request.urlopen(portal.url + place, timeout=60) as answer:
            answer.read()
    lines = [line for line in log.read_text().splitlines() if f" GET {path} " in line]
    return [float(line.split()[-1]) for line in lines[before:]]


def main() -> None:
    """Publish, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    with tempfile.TemporaryDirectory() as folder:
        portal = Portal(Path(folder) / "portal")
        source = make(Path(folder) / "files", options.files)
        done = portal.command("publish", str(source), f"{NAME}@1")
        assert done.returncode == 0, done.stderr
        portal.start_site()
        try:
            print(f"{options.files:,} files, {options.rounds} times each; milliseconds")
            print("| asked | first | median | 99 of 100 under |\n| --- | --- | --- | --- |")
            for name, place in PLACES.items():
                first, *rest = (
                    second * 1000 for second in seconds_of(portal, place, options.rounds)
                )
                most = statistics.quantiles(rest, n=100)[-1]
                print(f"| {name} | {first:.1f} | {statistics.median(rest):.1f} | {most:.1f} |")
        finally:
            portal.stop()


if __name__ == "__main__":
    main()
