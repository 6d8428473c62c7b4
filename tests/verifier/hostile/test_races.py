"""Files that shrink, grow, are replaced or vanish while they are read, again and again.

A thread changes the copy every few milliseconds while a process verifies it. Whatever it catches is
a finding or one sentence; it never hangs, never crashes, and never reads what lies outside.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.verifier.conftest import Signer, publish

from .cases import MIB, SHARD, Room, Worker
from .test_corpus import check_words

SIZE = 96 * MIB
"""Enough that child processes hash it, each with a map of its own."""
ROUNDS = 5
PAUSE_S = 0.002
SECRET = "the secret outside"

Step = Callable[[Path, int], object]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    """A published checkpoint of one large sparse file in a folder, and a small config."""
    root = tmp_path_factory.mktemp("large")
    (root / "official" / "sub").mkdir(parents=True)
    (root / "official" / "config.json").write_text("{}\n")
    with (root / "official" / "sub" / SHARD).open("wb") as file:
        file.truncate(SIZE)
    publish(root / "official", root / "work", signer)
    return root / "official"


@pytest.fixture
def place(room: Room, large: Path) -> Room:
    """A room whose copy is the large checkpoint, sparse again."""
    shutil.rmtree(room.copy)
    subprocess_copy(large, room.copy)
    (room.aside / "outside").mkdir()
    (room.aside / "outside" / SHARD).write_text(SECRET)
    return room


def subprocess_copy(source: Path, target: Path) -> None:
    """Copy with holes, which Python's copytree would fill."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    with (target / "sub" / SHARD).open("wb") as file:
        file.truncate(SIZE)


@contextlib.contextmanager
def changing(copy: Path, step: Step) -> Iterator[None]:
    """Take ``step`` every few milliseconds, in a thread, while the block runs."""
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.wait(PAUSE_S):
            step(copy, number)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def resize(sizes: tuple[int, int]) -> Step:
    def step(copy: Path, number: int) -> None:
        os.truncate(copy / "sub" / SHARD, sizes[number % 2])

    return step


def write(copy: Path, number: int) -> None:
    """Change a byte and put it back: the size stays."""
    with (copy / "sub" / SHARD).open("r+b") as file:
        file.seek(SIZE - 1)
        file.write(bytes([number % 2]))


def swap(make: Callable[[Path], object]) -> Step:
    """Put something else in the file's place, and the file back, each in one step."""

    def step(copy: Path, number: int) -> None:
        path, kept, other = copy / "sub" / SHARD, copy.parent / "kept", copy.parent / "other"
        if number % 2 == 0:
            make(other)
            os.link(path, kept)
            other.replace(path)
        else:
            kept.replace(path)

    return step


def small(path: Path) -> None:
    path.write_bytes(b"other bytes")


def vanish(copy: Path, number: int) -> None:
    path, kept = copy / "sub" / SHARD, copy.parent / "kept"
    os.rename(*((path, kept) if number % 2 == 0 else (kept, path)))


def swap_folder(copy: Path, number: int) -> None:
    """The folder around it becomes a link to one outside, and a folder again."""
    folder, kept = copy / "sub", copy.parent / "kept"
    if number % 2 == 0:
        folder.rename(kept)
        folder.symlink_to(copy.parent / "aside" / "outside")
    else:
        folder.unlink()
        kept.rename(folder)


def undo(copy: Path) -> None:
    """Put back what the last step took away, for the next round."""
    kept, path = copy.parent / "kept", copy / "sub"
    if kept.is_dir():
        path.unlink()
        kept.rename(path)
    elif kept.exists():
        kept.replace(path / SHARD)


STEPS: dict[str, Step] = {
    "shrinks": resize((SIZE, MIB)),
    "shrinks to nothing": resize((SIZE, 0)),
    "grows": resize((SIZE, SIZE + 5 * MIB)),
    "is written to": write,
    "is replaced": swap(small),
    "becomes a link to an endless device": swap(lambda path: path.symlink_to("/dev/zero")),
    "becomes a link out of the folder": swap(lambda path: path.symlink_to("/etc/hostname")),
    "becomes a pipe": swap(os.mkfifo),
    "vanishes": vanish,
    "is in a folder that becomes a link": swap_folder,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_a_file_that_changes_while_it_is_read_is_a_finding(worker: Worker, place: Room, step: Step):
    arguments = [str(place.copy), "--json", "--trusted-key", str(place.signer.public)]
    codes = set()
    for _ in range(ROUNDS):
        with changing(place.copy, step):
            time.sleep(PAUSE_S)
            answer = worker.run(place, [*arguments, "--checks", "files,weights"])
        undo(place.copy)
        assert answer.died is None, f"{answer.died}\n{answer.err[-2000:]}"
        check_words(answer)
        assert answer.deeds == []
        assert answer.status in (0, 1), answer.err
        assert SECRET not in answer.out
        codes |= {f["code"] for f in answer.report["findings"]}
    assert codes  # it was caught at least once


SMALL: dict[str, Step] = {
    "bundle": lambda copy, number: flicker(copy / "model.sig", number),
    "side file": lambda copy, number: flicker(copy / ".weighbridge" / "leaves.b3", number),
    "config": lambda copy, number: flicker(copy / "config.json", number),
    "header": lambda copy, number: os.truncate(copy / SHARD, (5, 20_000)[number % 2]),
}


def flicker(path: Path, number: int) -> None:
    """The file is written anew, cut off, or not there."""
    kept = path.parent.parent / f"kept-{path.name}"
    if number % 3 == 0:
        path.rename(kept)
    elif number % 3 == 1:
        path.write_bytes(kept.read_bytes()[:100])
    else:
        kept.replace(path)


@pytest.mark.parametrize("step", SMALL.values(), ids=list(SMALL))
def test_a_small_file_that_changes_ends_in_a_finding_or_one_sentence(
    worker: Worker, room: Room, step: Step
):
    arguments = [str(room.copy), "--json", "--trusted-key", str(room.signer.public)]
    arguments += ["--checks", "files,weights"]
    with changing(room.copy, step):
        answers = [worker.run(room, arguments) for _ in range(3 * ROUNDS)]
    for answer in answers:
        assert answer.died is None, f"{answer.died}\n{answer.err[-2000:]}"
        check_words(answer)
        assert answer.deeds == []
        assert answer.status in (0, 1, 2)
        assert (answer.status == 2) == (answer.out == "")
    assert any(answer.status or answer.report["findings"] for answer in answers)
