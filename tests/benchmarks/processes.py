"""Whole processes, timed in turn, so that a machine whose speed drifts does not favour one."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Command:
    """What is timed; ``idle`` does all of it but the work (`--help`), and its time is taken off."""

    name: str
    arguments: Sequence[str]
    idle: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def run(self) -> None:
        """Time it once.

        Raises:
            SystemExit: it failed, so that its time would mean nothing.
        """
        self.seconds.append(
            self._timed(self.arguments) - (self._timed(self.idle) if self.idle else 0)
        )

    def _timed(self, arguments: Sequence[str]) -> float:
        started = time.perf_counter()
        with tempfile.TemporaryFile() as complaint:
            process = subprocess.Popen(
                list(arguments),
                stdout=subprocess.DEVNULL,
                stderr=complaint,
                env=os.environ | dict(self.environment),
            )
            _, status, used = os.wait4(process.pid, 0)  # its own peak, not that of any child so far
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                complaint.seek(0)
                print(complaint.read()[-2000:].decode(errors="replace"), file=sys.stderr)
                raise SystemExit(f"{self.name} ended with {process.returncode}")
        peak = used.ru_maxrss / 1024
        self.peak_mib = max(self.peak_mib, peak)
        return seconds


def take_turns(commands: Sequence[Command], rounds: int) -> None:
    """Run each command once, uncounted, then all of them ``rounds`` times in turn."""
    for command in commands:
        command.run()
        command.seconds.clear()
    for _ in range(rounds):
        for command in commands:
            command.run()


def ratio(one: Command, other: Command) -> float:
    """Return the median over the rounds of how many times faster ``one`` was than ``other``."""
    pairs = zip(one.seconds, other.seconds, strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


def table(commands: Sequence[Command], ours: Command, size: int) -> str:
    """Return rows of Markdown: rate in GB/s (10⁹ bytes), and how many times faster ours was."""
    lines = ["| command | GB/s | ours is faster by |", "| --- | --- | --- |"]
    for command in commands:
        rate = size / command.median / 1e9
        against = "" if command is ours else f"{ratio(ours, command):.2f} ×"
        lines.append(f"| {command.name} | {rate:.2f} | {against} |")
    return "\n".join(lines)
