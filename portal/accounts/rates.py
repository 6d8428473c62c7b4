"""Count requests, and say no to the one too many."""

import time

from django.core.cache import cache


class RateError(Exception):
    """Too much was asked in too short a time. ``wait`` is in seconds."""

    def __init__(self, wait: int) -> None:
        super().__init__(f"That is too often; try again in {wait} seconds.")
        self.wait = wait


def count(action: str, who: str, *, most: int, seconds: int) -> None:
    """Count one ``action`` of ``who``'s in the current span of ``seconds``.

    Raises:
        RateError: there were ``most`` already.
    """
    span, passed = divmod(int(time.time()), seconds)
    key = f"rate:{action}:{who}:{span}"
    cache.add(key, 0, timeout=seconds)
    try:
        counted = cache.incr(key)
    except ValueError:  # the span ended between the two calls
        counted = 1
    if counted > most:
        raise RateError(seconds - passed)
