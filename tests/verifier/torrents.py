"""Torrents made by libtorrent, the oracle, and by hand where no honest program would make them."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libtorrent

from verifier import bencode

PIECE = 32 << 10
VERSIONS = {
    "v1": libtorrent.create_torrent.v1_only,
    "v2": libtorrent.create_torrent.v2_only,
    "hybrid": 0,
    "hybrid without a last pad": libtorrent.create_torrent.canonical_files_no_tail_padding,
}

EDGES = {
    "empty.txt": 0,
    "one.txt": 1,
    "block.bin": 16 << 10,
    "block-and-one.bin": (16 << 10) + 1,
    "two/piece-less-one.safetensors": PIECE - 1,
    "two/piece.safetensors": PIECE,
    "two/piece-and-one.safetensors": PIECE + 1,
    "two/deep/er/five-pieces-less-one.bin": 5 * PIECE - 1,
    "two/deep/er/five-pieces.bin": 5 * PIECE,
    "two/deep/five-pieces-and-one.bin": 5 * PIECE + 1,
    "zz.json": 700,
}
"""Files of the sizes at which hashing goes wrong."""


def fill_edges(folder: Path, seed: int = 5) -> Path:
    """Write the files of ``EDGES``."""
    chance = random.Random(seed)
    for name, size in EDGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
    return folder


def make(
    path: Path, version: str = "v1", *, piece: int = PIECE, change: Callable[[Any], object] = id
) -> bytes:
    """Return libtorrent's torrent of ``path``, a folder or file; ``change`` may alter its maker."""
    maker = libtorrent.create_torrent(
        libtorrent.list_files(str(path)), piece_size=piece, flags=VERSIONS[version]
    )
    change(maker)
    libtorrent.set_piece_hashes(maker, str(path.parent))
    return libtorrent.bencode(maker.generate())


def magnet(torrent: bytes) -> str:
    """Return libtorrent's magnet link of ``torrent``."""
    return libtorrent.make_magnet_uri(libtorrent.load_torrent_buffer(torrent))


def infohashes(torrent: bytes) -> tuple[str, str]:
    """Return the infohashes, v1 and v2, as libtorrent computes them; zeros where there is none."""
    found = libtorrent.load_torrent_buffer(torrent).info_hashes
    return str(found.v1), str(found.v2)


def changed(torrent: bytes, change: Callable[[dict[bytes, Any]], object]) -> bytes:
    """Return ``torrent`` after ``change`` has had its top dictionary."""
    fields = libtorrent.bdecode(torrent)
    change(fields)
    return libtorrent.bencode(fields)


def v1_info(**fields: Any) -> dict[bytes, Any]:
    """Return an honest v1 info of one file of 5 bytes, with ``fields`` (`piece_length`) changed."""
    info = {b"name": b"m", b"piece length": PIECE, b"length": 5, b"pieces": bytes(20)}
    for key, value in fields.items():
        name = key.replace("_", " ").encode()
        info.pop(name, None)
        if value is not None:
            info[name] = value
    return info


def v1_torrent(**fields: Any) -> bytes:
    return bencode.encode({b"info": v1_info(**fields)})


def v2_torrent(tree: Any, **fields: Any) -> bytes:
    info = {b"name": b"m", b"piece length": PIECE, b"meta version": 2, b"file tree": tree}
    info |= {key.replace("_", " ").encode(): value for key, value in fields.items()}
    return bencode.encode({b"info": info})
