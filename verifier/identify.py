"""What is this? Which of many manifests a copy is of, at the cost of reading it once.

Files first: every file of the copy that has an official size or name is hashed once and looked up
in an index of all manifests; where it is called as an official file is, its leaves are laid beside
those, so that renamed, damaged and truncated files count for what is right in them. Where no
weights are found so, values: the digests of some tensors of the copy, whatever their type, shard
and layout, are looked up among the published ones of all manifests. Where these say nothing either,
the sketches tell which checkpoint's tensors are most alike.

Manifests are only ranked here. What the copy is of the best one, the whole verification says.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from typing import Any

from . import engine, layouts
from .digests import DIGEST_BYTES, LEAF_BYTES
from .errors import ManifestError, ReadError, VerifierError
from .files_check import Hasher
from .layouts import LogicalTensor
from .manifest import Manifest, ManifestFile
from .readers import is_weight_file, read_tensors
from .walk import FoundFile, Listing

SAMPLED_TENSORS = 24
SAMPLED_BYTES = 1 << 30
"""How much of the copy is read to look its values up."""
LEAST_ENTRIES = 1024
"""Smaller tensors are no evidence."""
ALIKE = 0.3
"""The mean likeness of sampled tensors above which a sketch points to its checkpoint."""

Load = Callable[[int], Mapping[str, Any] | None]
_Shape = tuple[str | None, str | None]


@dataclass(slots=True)
class Match:
    """How well a copy matches one manifest, in bytes that are right, tensors and likeness.

    ``called`` counts files of an official name and size; a small file with one wrong bit shows no
    more. ``related`` counts tensors of an official name and shape, which is no match.
    """

    index: int
    weight_bytes: int = 0
    other_bytes: int = 0
    complete: bool = False
    tensors: int = 0
    likeness: float = 0.0
    called: int = 0
    related: int = 0

    @property
    def rank(self) -> tuple[bool, int, int, float, int, int, int]:
        """Compare matches by this: the larger, the better."""
        return (
            self.complete,
            self.weight_bytes,
            self.tensors,
            self.likeness,
            self.other_bytes,
            self.called,
            self.related,
        )

    @property
    def is_match(self) -> bool:
        """Whether anything of the copy is of this checkpoint."""
        told = self.weight_bytes or self.tensors or self.likeness or self.other_bytes
        return bool(told or self.called)


def best(
    listing: Listing,
    manifests: Sequence[Manifest],
    hasher: Hasher,
    load_sketch: Load,
    *,
    weights: bool = True,
) -> Match:
    """Return the match of the manifest that the copy in ``listing`` is most likely of.

    ``load_sketch`` returns the sketch that belongs to the manifest with an index, if there is one.
    Without ``weights`` no tensor is looked at.
    """
    matches = [Match(index) for index in range(len(manifests))]
    _by_files(listing, manifests, hasher, matches)
    decided = any(match.weight_bytes or match.complete for match in matches)
    if weights and not decided and any(map(is_weight_file, listing.files)):
        sampled = _sample(listing)
        if sampled:
            _by_values(listing, manifests, matches, sampled)
        if sampled and not any(match.tensors for match in matches):
            _by_sketches(listing, matches, sampled, load_sketch)
    return max(matches, key=lambda match: match.rank)


@dataclass(slots=True)
class _Index:
    """All entries of all manifests, so that a file of the copy is looked up and not compared.

    ``shapes`` are the kinds of digest (of leaves, of the whole) that entries of a size or a name
    are compared by; ``exact`` leads from a digest to the entries that have it.
    """

    sizes: dict[int, set[_Shape]] = field(default_factory=lambda: defaultdict(set))
    named: dict[str, list[tuple[int, ManifestFile]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    exact: dict[tuple[str, bytes], list[tuple[int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, index: int, found: Manifest, kinds: Sequence[str]) -> None:
        """Take in a manifest; its files are found by path, and by last name where that is unique."""
        lasts = Counter(_last(name) for name in found.files)
        for entry in found.files.values():
            leaves = entry.leaf_list(kinds)
            if leaves is None:
                self.exact[entry.algorithm, bytes.fromhex(entry.whole)].append((index, entry.name))
            else:
                self.exact[leaves.kind, leaves.digests].append((index, entry.name))
            if entry.size is not None:
                self.sizes[entry.size].add(_shape(entry, kinds))
            self.named[entry.name].append((index, entry))
            if lasts[_last(entry.name)] == 1 and _last(entry.name) != entry.name:
                self.named[_last(entry.name)].append((index, entry))

    def candidates(self, name: str) -> Iterator[tuple[int, ManifestFile]]:
        """Give the entries that are called so."""
        yield from self.named.get(name, ())
        if _last(name) != name:
            yield from self.named.get(_last(name), ())

    def shapes(self, file: FoundFile, kinds: Sequence[str]) -> set[_Shape]:
        """Return by which digests ``file`` must be looked up: none where nothing is like it."""
        found = set(self.sizes.get(file.size, ()))
        for _, entry in self.candidates(file.name):
            if entry.size in (None, file.size) or entry.leaf_list(kinds):
                found.add(_shape(entry, kinds))
        return found


def _by_files(
    listing: Listing, manifests: Sequence[Manifest], hasher: Hasher, matches: Sequence[Match]
) -> None:
    """Count the bytes of the copy that each manifest has signed."""
    index = _Index()
    for number, found in enumerate(manifests):
        index.add(number, found, hasher.kinds)
    jobs = {
        file.name: [hasher.job_of(file, *shape) for shape in index.shapes(file, hasher.kinds)]
        for file in listing.files.values()
    }
    known = hasher.run(job for several in jobs.values() for job in several)
    complete: list[set[str]] = [set() for _ in manifests]
    for name, several in jobs.items():
        right: dict[int, int] = {}
        for job in several:
            _look_up(index, known[job], right, complete)
        for number, good in right.items():
            if is_weight_file(name):
                matches[number].weight_bytes += good
            else:
                matches[number].other_bytes += good
    for file in listing.files.values():
        for number, entry in index.candidates(file.name):
            matches[number].called += entry.size == file.size
    for match, found, there in zip(matches, manifests, complete, strict=True):
        match.complete = there == set(found.files)


def _look_up(
    index: _Index, found: engine.Digests, right: dict[int, int], complete: Sequence[set[str]]
) -> None:
    """Note how many bytes of one file are right in each manifest, and which names are."""
    if found.error is not None:
        return
    file = found.job.file
    digests = [(kind, bytes(leaves)) for kind, leaves in found.leaves.items()]
    digests += [(kind, bytes.fromhex(whole)) for kind, whole in found.whole.items()]
    for digest in digests:
        for number, name in index.exact.get(digest, ()):
            right[number] = file.size
            if name == file.name:
                complete[number].add(name)
    for kind, leaves in found.leaves.items():
        for number, entry in index.candidates(file.name):
            official = entry.leaf_list((kind,))
            if official and right.get(number, 0) < file.size:
                same = _same_leaves(official.digests, leaves)
                right[number] = max(right.get(number, 0), min(same * LEAF_BYTES, file.size))


def _same_leaves(one: bytes, two: bytes | bytearray) -> int:
    """Return how many digests are the same in the same place."""
    return sum(
        one[at : at + DIGEST_BYTES] == two[at : at + DIGEST_BYTES]
        for at in range(0, min(len(one), len(two)), DIGEST_BYTES)
    )


def _shape(entry: ManifestFile, kinds: Sequence[str]) -> _Shape:
    leaves = entry.leaf_list(kinds)
    return (leaves.kind, None) if leaves else (None, entry.algorithm)


@dataclass(slots=True)
class _Sampled:
    """Tensors of the copy to look up, and all shapes it has, by canonical name."""

    tensors: list[LogicalTensor]
    shapes: dict[str, tuple[int, ...]]


def _sample(listing: Listing) -> _Sampled | None:
    """Choose tensors from all over the copy; None where they cannot be read here."""
    from . import values

    if not values.available():
        return None
    entries = []
    for name in sorted(filter(is_weight_file, listing.files)):
        try:
            entries += read_tensors(listing.root, name)
        except ReadError:
            continue  # the verification itself says so
    sets, _ = layouts.arrange(listing.root, entries)
    tensors = [tensor for found in sets for tensor in found.tensors]
    telling = [t for t in tensors if len(t.shape) == 2 and t.shape[0] * t.shape[1] >= LEAST_ENTRIES]
    chosen: list[LogicalTensor] = []
    size = 0
    step = max(-(-len(telling) // SAMPLED_TENSORS), 1)
    for tensor in sorted(telling[::step], key=lambda tensor: tensor.stored_bytes):
        if chosen and size + tensor.stored_bytes > SAMPLED_BYTES:
            break
        chosen.append(tensor)
        size += tensor.stored_bytes
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    return _Sampled(chosen, shapes) if chosen else None


def _by_values(
    listing: Listing,
    manifests: Sequence[Manifest],
    matches: Sequence[Match],
    sampled: _Sampled,
) -> None:
    """Count the sampled tensors whose values, or a rounding of them, are published."""
    wanted = {tensor.name for tensor in sampled.tensors}
    published: dict[str, dict[str, list[tuple[int, Mapping[str, str]]]]] = {
        name: defaultdict(list) for name in wanted
    }
    for match, found in zip(matches, manifests, strict=True):
        for full, shape, digests in _rows(found):
            bare = _bare(full, sampled.shapes)
            if sampled.shapes.get(bare) != shape:
                continue
            match.related += 1
            if bare in wanted:
                published[bare][full].append((match.index, digests))
    for tensor in sampled.tensors:
        for full, officials in published[tensor.name].items():
            own = _digests_of(listing, tensor, full)
            for index, official in officials:
                same = any(official.get(kind) == digest for kind, digest in own)
                matches[index].tensors += same


def _rows(found: Manifest) -> Iterator[tuple[str, tuple[int, ...], Mapping[str, str]]]:
    """Give name, shape and value digests of the published tensors, as far as they can be read."""
    try:
        rows = (found.tensors() or {}).get("tensors")
    except ManifestError:
        return
    for row in rows if isinstance(rows, list) else ():
        match row:
            case {"name": str(name), "shape": [*shape], "values": dict(digests)}:
                yield name, tuple(shape), digests


def _bare(full: str, shapes: Mapping[str, Any]) -> str:
    """Return a published name without the folder that a release of several models gives it."""
    return full if full in shapes else _last(full)


def _digests_of(listing: Listing, tensor: LogicalTensor, name: str) -> set[tuple[str, str]]:
    """Return kind and digest of the values under a published name, as far as they are evidence."""
    from . import blocks, value_digests

    kinds = (value_digests.EXACT, *value_digests.ROUNDINGS)
    try:
        with blocks.Files(listing.root, tensor.paths) as files:
            stream = blocks.stream(files, tensor)
            found = value_digests.digest_values(name, tensor.shape, kinds, stream)
    except (VerifierError, OSError):
        return set()
    if not found.telling:
        return set()
    fitting = {value_digests.EXACT, *found.fits}
    return {(kind, digest) for kind, digest in found.digests.items() if kind in fitting}


def _by_sketches(
    listing: Listing, matches: Sequence[Match], sampled: _Sampled, load_sketch: Load
) -> None:
    """Note how alike the sampled tensors are to those of each checkpoint that has a sketch."""
    from . import sketch as sketches

    own: dict[tuple[str, bytes], Any] = {}
    for match in matches:
        found = load_sketch(match.index) if match.related else None
        if found is None:
            continue
        try:
            seed = bytes.fromhex(found["seed"])
        except (KeyError, TypeError, ValueError):
            raise ManifestError(sketches.MALFORMED) from None
        likenesses = []
        for tensor in sampled.tensors:
            published = sketches.load(found, tensor.name)
            if published is None:
                continue
            if (tensor.name, seed) not in own:
                own[tensor.name, seed] = _sketch_of(listing, tensor, seed)
            made = own[tensor.name, seed]
            if made is not None and len(made.samples) == len(published.samples):
                likeness = sketches.compare(published, made)
                likenesses.append(max(likeness.cosine or 0.0, cos(pi * likeness.hamming)))
        mean = sum(likenesses) / len(likenesses) if likenesses else 0.0
        match.likeness = mean if mean >= ALIKE else 0.0


def _sketch_of(listing: Listing, tensor: LogicalTensor, seed: bytes) -> Any:
    from . import blocks
    from . import sketch as sketches

    try:
        with blocks.Files(listing.root, tensor.paths) as files:
            return sketches.sketch_of(tensor.name, tensor, blocks.stream(files, tensor), seed)
    except (VerifierError, OSError):
        return None


def _last(name: str) -> str:
    return name.rpartition("/")[2]
