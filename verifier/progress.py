"""How far a long piece of work is: a bar for people, lines of JSON for our own processes."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

MIN_INTERVAL_S = 0.25


class Progress(Protocol):
    """Hears how many bytes of a stage (``files``, ``weights``, ``inference``) are done."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note; may be called often."""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


class JsonLines:
    """One JSON object a line on stderr, at most four a second, and one at the end of a stage."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Write the line if it is time for one."""
        now = time.monotonic()
        if now - self._last >= MIN_INTERVAL_S or done >= total:
            self._last = now
            line = {"stage": stage, "done": done, "total": total}
            print(json.dumps(line), file=sys.stderr, flush=True)


class Bar:
    """A bar with bytes, rate and remaining time on stderr, gone when its stage is done."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Draw the bar of ``stage``."""
        if stage != self._stage:
            self.close()
            self._stage, self._bar = stage, self._open(stage, total)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @staticmethod
    def _open(stage: str, total: int) -> Any:
        from tqdm import tqdm

        # No monitor thread: the engine forks, and a fork copies no threads.
        tqdm.monitor_interval = 0
        return tqdm(
            desc=stage, total=total, unit="B", unit_scale=True, leave=False, file=sys.stderr
        )


def choose(*, as_json: bool) -> Progress:
    """Return lines of JSON if asked for, else a bar if stderr is a terminal, else silence."""
    if as_json:
        return JsonLines()
    return Bar() if sys.stderr.isatty() else silent


def close(progress: Progress) -> None:
    """Take a bar off the screen, if ``progress`` is one."""
    if isinstance(progress, Bar):
        progress.close()


def counter(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Return a function that adds the bytes it is given and tells ``progress``."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, min(done, total), total)

    return advance
