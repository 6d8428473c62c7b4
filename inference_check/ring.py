"""The ring: slots that reader threads fill and hash while the compute thread multiplies.

    reader   claim a slot and the next item of the plan → read → ready → hash → release
    compute  take the items in the same order → multiply → release

Slots are claimed in the order of the plan and taken in that order, so whoever waits, waits for
something that is on its way. A slot is free again when everybody who needs it has let it go. The
first error of any thread ends all of them.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .plan import Item
from .stream import Slot


@dataclass(slots=True, eq=False)
class Load:
    """An item of the plan on its way: in which slot, whether it has been read, who needs it."""

    item: Item
    slot: Slot | None = None
    ready: bool = False
    holders: int = field(default=0)


class Ring:
    """Hands slots and items out in order; all methods may be called from any thread."""

    def __init__(self, slots: Sequence[Slot], items: Iterator[Item]) -> None:
        self._free = deque(slots)
        self._items = items
        self._due: deque[Load] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def claim(self) -> Load | None:
        """Return the next leaf to read and its slot; None when there is no more to read."""
        with self._changed:
            while True:
                while not self._free and not self._ended:
                    self._changed.wait()
                item = None if self._ended else next(self._items, None)
                if item is None:
                    self._ended = True
                    self._changed.notify_all()
                    return None
                load = Load(item)
                computes = item.leaf is None or bool(item.uses or item.keeps or item.drops)
                if computes:
                    self._due.append(load)
                if item.leaf is None:
                    load.ready = True
                    self._changed.notify_all()
                    continue
                load.slot, load.holders = self._free.popleft(), 1 + computes
                return load

    def set_ready(self, load: Load) -> None:
        """Say that the slot has been filled."""
        with self._changed:
            load.ready = True
            self._changed.notify_all()

    def take(self) -> Load | None:
        """Return the next item to compute with, once it is ready; None at the end.

        Raises:
            BaseException: whatever ended another thread.
        """
        with self._changed:
            while not (self._due and self._due[0].ready):
                if self._error is not None:
                    raise self._error
                if self._ended and not self._due:
                    return None
                self._changed.wait()
            if self._error is not None:
                raise self._error
            return self._due.popleft()

    def release(self, load: Load) -> None:
        """Let go of a slot; the last one to do so frees it."""
        with self._changed:
            load.holders -= 1
            if load.slot is not None and load.holders == 0:
                self._free.append(load.slot)
                load.slot = None
                self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Let no more be claimed; with an ``error``, which others then raise, the first one."""
        with self._changed:
            self._ended = True
            self._error = self._error or error
            self._changed.notify_all()


class Readers:
    """Threads that fill and hash: ``fill(load)`` before a load is ready, ``digest(load)`` after."""

    def __init__(
        self,
        ring: Ring,
        count: int,
        fill: Callable[[Load], None],
        digest: Callable[[Load], None],
    ) -> None:
        self.ring, self._fill, self._digest = ring, fill, digest
        self._threads = [
            threading.Thread(target=self._work, name=f"reader {n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        try:
            while (load := self.ring.claim()) is not None:
                self._fill(load)
                self.ring.set_ready(load)
                self._digest(load)
                self.ring.release(load)
        except BaseException as error:  # noqa: BLE001 (the compute thread raises it again)
            self.ring.end(error)

    def join(self) -> None:
        """Wait until every thread has ended."""
        for thread in self._threads:
            thread.join()
