"""The digest engine: many files, or one large one, hashed on all cores.

Each file's leaves are cut into spans of 32 MiB; child processes map one span at a time and send its
digests back, so a single file uses every core and memory stays small. A file that is truncated
while a child has it mapped ends that child with SIGBUS: the engine notes the file and starts
another. Where there is little to hash, all happens in this process, without maps.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from .digests import DIGEST_BYTES, LEAF_BYTES, hash_leaves, hash_whole, leaf_count
from .errors import ReadError
from .resume import Journal, Span
from .walk import ChangedError, FoundFile, check_unchanged

SPAN_LEAVES = 8
SMALL_BYTES = 64 << 20
"""Less than this in all is hashed in this process: starting children would take longer."""
_QUEUED_PER_CHILD = 2

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What to compute of one file: digests of its leaves, of all of it, or both.

    ``limit`` bounds the bytes whose leaves are hashed, for files longer than they should be.
    """

    file: FoundFile
    leaf_kinds: tuple[str, ...] = ()
    whole_kinds: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def size(self) -> int:
        """Bytes whose leaves are hashed."""
        return self.file.size if self.limit is None else min(self.file.size, self.limit)

    @property
    def leaves(self) -> int:
        """How many leaves are hashed."""
        return leaf_count(self.size) if self.leaf_kinds else 0

    @property
    def work(self) -> int:
        """Bytes to be read for it, for progress."""
        leaves = self.size if self.leaf_kinds else 0
        return leaves + (self.file.size if self.whole_kinds else 0)


@dataclass(slots=True)
class Digests:
    """What came out of one job; ``error`` says why nothing did."""

    job: Job
    leaves: dict[str, bytearray] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    error: ReadError | None = None
    _left: int = 0


@dataclass(frozen=True, slots=True)
class _Task:
    """A span of leaves of a job, or (``count`` 0) the whole of its file."""

    index: int
    file: FoundFile
    kinds: tuple[str, ...]
    size: int = 0
    first: int = 0
    count: int = 0

    @property
    def bytes(self) -> int:
        """Bytes that are read for it."""
        if self.count == 0:
            return self.file.size
        return min(self.count * LEAF_BYTES, self.size - self.first * LEAF_BYTES)

    @property
    def span(self) -> Span:
        """What a journal knows it by: the same in another run while the file stays the same."""
        place = self.file.identity
        identity = (place.device, place.inode, place.size, place.mtime_ns, place.ctime_ns)
        return Span(self.file.name, identity, self.kinds, self.size, self.first, self.count)


def cpu_count() -> int:
    """Return how many cores this process may use."""
    return min(len(os.sched_getaffinity(0)), 32)


def run(
    jobs: Sequence[Job],
    advance: Advance,
    *,
    workers: int | None = None,
    journal: Journal | None = None,
) -> Iterator[Digests]:
    """Do ``jobs`` and yield each as it is finished; ``advance`` hears of bytes read.

    What the ``journal`` of an earlier run knows is not read again, and what is read is noted there.
    """
    results = [_prepare(job) for job in jobs]
    tasks = [_tasks(index, job) for index, job in enumerate(jobs)]
    for index, result in enumerate(results):
        if journal is not None:
            tasks[index] = [t for t in tasks[index] if not _recalled(t, result, journal)]
        result._left = len(tasks[index])
        if not tasks[index]:
            yield _finish(result)
    todo = deque(task for group in tasks for task in group)
    workers = cpu_count() if workers is None else workers
    if sum(task.bytes for task in todo) < SMALL_BYTES or workers < 1:
        answers = _run_here(todo, results, advance)
    else:
        answers = _Pool(min(workers, len(todo)), todo, results, advance).run()
    for task, answer in answers:
        result = results[task.index]
        if isinstance(answer, ReadError):
            result.error = result.error or answer
        else:
            _store(result, task, answer)
            if journal is not None:
                journal.note(task.span, answer)
        result._left -= 1
        if result._left == 0:
            yield _finish(result)


def _prepare(job: Job) -> Digests:
    size = job.leaves * DIGEST_BYTES
    return Digests(job, {kind: bytearray(size) for kind in job.leaf_kinds})


def _tasks(index: int, job: Job) -> list[_Task]:
    spans = [
        _Task(
            index, job.file, job.leaf_kinds, job.size, first, min(SPAN_LEAVES, job.leaves - first)
        )
        for first in range(0, job.leaves, SPAN_LEAVES)
    ]
    # The serial digest of a file is its longest task: it starts first.
    return ([_Task(index, job.file, job.whole_kinds)] if job.whole_kinds else []) + spans


def _recalled(task: _Task, result: Digests, journal: Journal) -> bool:
    """Take the digests of ``task`` from an earlier run, if they are there and whole."""
    known = journal.recall(task.span)
    if known is None or set(known) != set(task.kinds):
        return False
    if task.count and any(len(v) != task.count * DIGEST_BYTES for v in known.values()):
        return False
    _store(result, task, known)
    return True


def _store(result: Digests, task: _Task, answer: dict[str, Any]) -> None:
    for kind, value in answer.items():
        if task.count:
            at = task.first * DIGEST_BYTES
            result.leaves[kind][at : at + len(value)] = value
        else:
            result.whole[kind] = value


def _finish(result: Digests) -> Digests:
    if result.error is None:
        try:
            check_unchanged(result.job.file)
        except ChangedError as error:
            result.error = error
    return result


def _do(task: _Task, advance: Advance, *, mapped: bool) -> dict[str, Any] | ReadError:
    try:
        if task.count == 0:
            return dict(hash_whole(task.file, task.kinds, advance))
        found = hash_leaves(task.file, task.size, task.first, task.count, task.kinds, mapped=mapped)
    except ReadError as error:
        return error
    except (OSError, ValueError) as error:
        # mmap raises ValueError where the file has become shorter than the span.
        try:
            check_unchanged(task.file)
        except ChangedError as changed:
            return changed
        return ReadError(task.file.name, f"it cannot be read: {error}")
    advance(task.bytes)
    return found


def _run_here(
    todo: Iterable[_Task], results: Sequence[Digests], advance: Advance
) -> Iterator[tuple[_Task, dict[str, Any] | ReadError]]:
    for task in todo:
        error = results[task.index].error
        yield task, error or _do(task, advance, mapped=False)


class _Child:
    """A process that hashes what it is sent, in order."""

    def __init__(self, siblings: Iterable["_Child"]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        # A child must not hold its siblings' pipes open: their end tells them that we are gone.
        inherited = [sibling.connection for sibling in siblings] + [self.connection]
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, inherited), daemon=True
        )
        self.process.start()
        theirs.close()
        self.queued: deque[_Task] = deque()

    def send(self, task: _Task) -> None:
        """Queue ``task``; where the child has died, the next receive says so."""
        self.queued.append(task)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(task)

    def end(self) -> None:
        """Stop the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool:
    """The children and what they are doing."""

    def __init__(
        self, workers: int, todo: deque[_Task], results: Sequence[Digests], advance: Advance
    ) -> None:
        self.todo = todo
        self.results = results
        self.advance = advance
        self.workers = workers
        self.children: list[_Child] = []

    def run(self) -> Iterator[tuple[_Task, dict[str, Any] | ReadError]]:
        """Yield the answer to each task; leave no process behind, whatever happens."""
        try:
            for _ in range(self.workers):
                self.children.append(_Child(self.children))
            for _ in range(_QUEUED_PER_CHILD):
                for child in self.children:
                    yield from self._feed(child)
            while any(child.queued for child in self.children):
                ready = wait([child.connection for child in self.children if child.queued])
                for child in [c for c in self.children if c.connection in ready]:
                    yield from self._receive(child)
        finally:
            for child in self.children:
                child.end()

    def _receive(self, child: _Child) -> Iterator[tuple[_Task, dict[str, Any] | ReadError]]:
        try:
            message = child.connection.recv()
        except (EOFError, ConnectionResetError):
            yield from self._bury(child)
            return
        if isinstance(message, int):
            self.advance(message)
            return
        yield child.queued.popleft(), message
        yield from self._feed(child)

    def _feed(self, child: _Child) -> Iterator[tuple[_Task, dict[str, Any] | ReadError]]:
        """Send ``child`` the next task whose file has not failed already."""
        while self.todo:
            task = self.todo.popleft()
            error = self.results[task.index].error
            if error is None:
                child.send(task)
                return
            yield task, error

    def _bury(self, child: _Child) -> Iterator[tuple[_Task, dict[str, Any] | ReadError]]:
        """Blame the task that a dead child was at, and let another go on with the rest."""
        culprit = child.queued.popleft()
        self.todo.extendleft(reversed(child.queued))
        child.end()
        self.children.remove(child)
        yield culprit, ChangedError(culprit.file.name)
        heir = _Child(self.children)
        self.children.append(heir)
        for _ in range(_QUEUED_PER_CHILD):
            yield from self._feed(heir)


def _serve(connection: Connection, inherited: Sequence[Connection]) -> None:
    """Answer tasks until the other end closes: the child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends us
    faulthandler.disable()  # SIGBUS is expected here, and is the parent's to report
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for other in inherited:
        other.close()
    try:
        while True:
            task = connection.recv()
            connection.send(_do(task, connection.send, mapped=True))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
