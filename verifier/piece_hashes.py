"""Hash the pieces of a torrent over official bytes: on all cores, with a buffer per thread.

v1 pieces are cut from the files joined in order, so one piece may span many files; v2 pieces are
nodes of each file's own tree. SHA-1 and SHA-256 let other threads run, so threads are enough.
"""

import hashlib
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from typing import TypeVar

from .digests import BLOCK_BYTES, DIGEST_BYTES
from .engine import cpu_count
from .merkle import piece_node
from .walk import ChangedError, FoundFile, open_found

_TASK_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_ZEROS = bytes(_READ_BYTES)
_MAX_OPEN = 64

T = TypeVar("T")
R = TypeVar("R")
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of the joined files: the first ``length`` of ``file``, or zeros, or not known."""

    length: int
    file: FoundFile | None = None
    zeros: bool = False

    @property
    def known(self) -> bool:
        """Whether its bytes can be had."""
        return self.zeros or self.file is not None


class Stream:
    """Files joined and cut into pieces (BEP 3)."""

    def __init__(self, regions: Iterable[Region], piece_length: int) -> None:
        self.regions = [region for region in regions if region.length]
        self.piece_length = piece_length
        *self.starts, self.total = accumulate((r.length for r in self.regions), initial=0)
        self.count = -(-self.total // piece_length)

    def known_runs(self) -> Iterator[range]:
        """Yield, in order, the runs of pieces whose every byte is known."""
        at = 0
        for start, region in zip(self.starts, self.regions, strict=True):
            if not region.known:
                first = start // self.piece_length
                if at < first:
                    yield range(at, first)
                at = max(at, (start + region.length - 1) // self.piece_length + 1)
        if at < self.count:
            yield range(at, self.count)

    def parts(self, piece: int) -> Iterator[tuple[Region, int, int]]:
        """Yield the regions of ``piece`` in order, each with the bytes [start, end) of it."""
        at = piece * self.piece_length
        end = min(at + self.piece_length, self.total)
        index = bisect_right(self.starts, at) - 1
        while at < end:
            region, start = self.regions[index], self.starts[index]
            stop = min(end, start + region.length)
            yield region, at - start, stop - start
            at, index = stop, index + 1


def hash_stream(stream: Stream, advance: Advance) -> Iterator[tuple[range, list[bytes]]]:
    """Yield runs of pieces that are known, in order, with their SHA-1s; ``advance`` hears of bytes.

    Raises:
        ReadError: a file cannot be read, or is not what it was.
    """
    step = max(1, _TASK_BYTES // stream.piece_length)
    tasks = [
        range(first, min(first + step, run.stop))
        for run in stream.known_runs()
        for first in range(run.start, run.stop, step)
    ]

    def work(pieces: range) -> list[bytes]:
        with ExitStack() as stack:
            reader = _Reader(stack)
            return [_sha1(stream, piece, reader) for piece in pieces]

    for pieces, digests in _on_all_cores(work, tasks):
        yield pieces, digests
        end = min(pieces.stop * stream.piece_length, stream.total)
        advance(end - pieces.start * stream.piece_length)


def piece_layer(file: FoundFile, piece_length: int, advance: Advance) -> bytes:
    """Return the nodes of all pieces of ``file``, concatenated (BEP 52); one piece: its root.

    Raises:
        ReadError: the file cannot be read, or is not what it was.
    """
    whole = file.size <= piece_length
    step = max(1, _TASK_BYTES // piece_length)
    count = -(-file.size // piece_length)

    def work(pieces: range) -> list[bytes]:
        with ExitStack() as stack:
            reader = _Reader(stack)
            nodes = []
            for piece in pieces:
                start, end = piece * piece_length, min((piece + 1) * piece_length, file.size)
                blocks = [
                    hashlib.sha256(chunk[at : at + BLOCK_BYTES]).digest()
                    for chunk in reader.chunks(file, start, end)
                    for at in range(0, len(chunk), BLOCK_BYTES)
                ]
                nodes.append(piece_node(blocks, piece_length, whole=whole))
            return nodes

    layer = bytearray(count * DIGEST_BYTES)
    tasks = [range(first, min(first + step, count)) for first in range(0, count, step)]
    for pieces, nodes in _on_all_cores(work, tasks):
        layer[pieces.start * DIGEST_BYTES : pieces.stop * DIGEST_BYTES] = b"".join(nodes)
        advance(min(pieces.stop * piece_length, file.size) - pieces.start * piece_length)
    return bytes(layer)


class _Reader:
    """Reads official files through one buffer, each opened once."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.open: dict[FoundFile, int] = {}
        self.buffer = memoryview(bytearray(_READ_BYTES))

    def chunks(self, file: FoundFile, start: int, end: int) -> Iterator[memoryview]:
        """Yield the bytes [start, end) of ``file``, in chunks of a whole number of blocks."""
        if file not in self.open:
            if len(self.open) >= _MAX_OPEN:
                self.stack.close()
                self.open.clear()
            self.open[file] = open_found(file)
            self.stack.callback(os.close, self.open[file])
        for at in range(start, end, _READ_BYTES):
            wanted, filled = min(_READ_BYTES, end - at), 0
            while filled < wanted:
                read = os.preadv(self.open[file], [self.buffer[filled:wanted]], at + filled)
                if read == 0:
                    raise ChangedError(file.name)
                filled += read
            yield self.buffer[:filled]


def _sha1(stream: Stream, piece: int, reader: _Reader) -> bytes:
    parts = list(stream.parts(piece))
    if all(region.zeros for region, _, _ in parts):
        return _sha1_of_zeros(sum(end - start for _, start, end in parts))
    found = hashlib.sha1(usedforsecurity=False)
    for region, start, end in parts:
        if region.file is not None:
            for chunk in reader.chunks(region.file, start, end):
                found.update(chunk)
            continue
        for at in range(start, end, _READ_BYTES):
            found.update(_ZEROS[: end - at])
    return found.digest()


@lru_cache(maxsize=64)
def _sha1_of_zeros(length: int) -> bytes:
    found = hashlib.sha1(usedforsecurity=False)
    for at in range(0, length, _READ_BYTES):
        found.update(_ZEROS[: length - at])
    return found.digest()


def _on_all_cores(work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Yield each task and what ``work`` makes of it, in order; Ctrl-C ends all of them.

    Few are submitted at a time: their results stay small, and Ctrl-C finds the executor waiting,
    not in the middle of its own bookkeeping.
    """
    todo, workers = iter(tasks), cpu_count()
    with ThreadPoolExecutor(workers) as executor:
        try:
            pending = deque((t, executor.submit(work, t)) for t in islice(todo, 2 * workers))
            while pending:
                task, future = pending.popleft()
                result = future.result()
                pending.extend((t, executor.submit(work, t)) for t in islice(todo, 1))
                yield task, result
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
