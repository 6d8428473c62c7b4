"""Run unmodified clients against a real portal and write docs/clients.md from what was seen.

    python -m tests.clients

Each cell is a test of tests/portal/hub/test_*_live.py that ran just now.
"""

import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = [
    ROOT / "tests" / "portal" / "hub" / name
    for name in ("test_clients_live.py", "test_tools_live.py")
]
TABLE = ROOT / "docs" / "clients.md"
WORDS = {"passed": "works", "failed": "**fails**", "skipped": "not run"}
WORST = ("passed", "skipped", "failed")
HEAD = """\
# Clients

Written by `python -m tests.clients`, which runs each of these against a real portal; do not edit.
None is modified: the Hugging Face tools are given `HF_ENDPOINT` (the portal's address) and `HF_TOKEN` (a token
made at `/account/tokens/`), the others an `Authorization` header.

`llama/7b@1` is repository `llama/7b` at revision `1`; `main` is its newest version. What the portal has to say (the
place in the queue, the reason of a decision, when access ends, a recall) is printed by huggingface_hub since 1.2.
"""


class Cells:
    """A pytest plugin that keeps the outcome of each cell."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of the tests of one cell."""
        cell = dict(report.user_properties).get("cell")
        if cell is None or (report.when != "call" and report.outcome == "passed"):
            return
        name, version, operation = cell
        outcomes = self.seen[name, version]
        outcomes[operation] = max(
            outcomes.get(operation, "passed"), report.outcome, key=WORST.index
        )


def table(seen: dict[tuple[str, str], dict[str, str]]) -> str:
    """Return the versions of huggingface_hub side by side, then the other clients."""
    hubs = sorted((client for client in seen if client[0] == "huggingface_hub"), key=_order)
    operations = list(dict.fromkeys(name for client in hubs for name in seen[client]))
    lines = [f"| huggingface_hub | {' | '.join(version for _, version in hubs)} |"]
    lines.append("| --- |" + " --- |" * len(hubs))
    for operation in operations:
        cells = [WORDS.get(seen[client].get(operation, ""), "–") for client in hubs]
        lines.append(f"| {operation} | {' | '.join(cells)} |")
    lines += ["", "| client | version | operation | |", "| --- | --- | --- | --- |"]
    for client in sorted(client for client in seen if client not in hubs):
        for operation, outcome in seen[client].items():
            lines.append(f"| {client[0]} | {client[1]} | {operation} | {WORDS[outcome]} |")
    return "\n".join(lines)


def _order(client: tuple[str, str]) -> list[int]:
    return [int(part) for part in client[1].split(".")]


def main() -> int:
    """Run the tests and write the table; return pytest's exit status."""
    cells = Cells()
    status = pytest.main(["-q", *map(str, TESTS)], plugins=[cells])
    if cells.seen:
        TABLE.write_text(f"{HEAD}\n{table(cells.seen)}\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
