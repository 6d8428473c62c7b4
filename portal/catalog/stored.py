"""Compare what lies in the store with what was signed: every byte is read back."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from portal.catalog.models import Checkpoint, Shard
from portal.storage.stores import Progress, StoreError, store
from verifier import progress

AT_ONCE = 4
PIECE = 4 << 20


def compare(checkpoint: Checkpoint, show: progress.Progress = progress.silent) -> list[str]:
    """Return a sentence for each file of ``checkpoint`` that the store does not hold as signed."""
    shards = list(checkpoint.shards.current())
    total, done, lock = sum(shard.size for shard in shards), 0, Lock()

    def more(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            show("store", done, total)

    with ThreadPoolExecutor(AT_ONCE, "compare") as pool:
        answers = pool.map(_comparing(more), shards)
        return [answer for answer in answers if answer]


def _comparing(more: Progress) -> Callable[[Shard], str]:
    def one(shard: Shard) -> str:
        try:
            with store().open(shard.store_key, shard.store_version) as file:
                digest, size = hashlib.sha256(), 0
                # one byte more than there should be tells a longer file without reading it all
                while piece := file.read(min(PIECE, shard.size + 1 - size)):
                    digest.update(piece)
                    size += len(piece)
                    more(len(piece))
        except StoreError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a body that breaks off, in any library's words
            return f"{shard.path} cannot be read to its end ({type(error).__name__}); try again."
        if size != shard.size or digest.hexdigest() != shard.sha256:
            return f"{shard.path} in the store ({shard.store_key}) is not what was signed."
        return ""

    return one
