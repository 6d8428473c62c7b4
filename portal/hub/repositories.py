"""Checkpoints as repositories: `llama/7b@1` is repository `llama/7b` at revision `1`.

`main` is the newest version. A commit id is the beginning of the digest of a signed manifest
(`model.sig`), so that equal ids are equal files; it stays good after the manifest is signed again.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Left

from portal.catalog.models import Checkpoint, Shard
from portal.hub.answers import NO_REPOSITORY, NO_REVISION, Refusal
from portal.hub.listing import Listing, as_of, listing_of
from verifier.manifest import BUNDLE_NAME

MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
PART = r"[a-z0-9._-]{1,63}"
REPOSITORY, VERSION = re.compile(f"({PART})/({PART})"), re.compile(PART)


@dataclass(frozen=True, slots=True)
class Repository:
    """A checkpoint as it was signed at one time; ``replaced_at`` is when it was signed again."""

    checkpoint: Checkpoint
    commit: str
    replaced_at: datetime | None = None

    @property
    def id(self) -> str:
        """Its name without the version, `llama/7b`."""
        return f"{self.checkpoint.family.slug}/{self.checkpoint.variant}"

    @property
    def listing(self) -> Listing:
        """Its files."""
        return listing_of(self.checkpoint, self.commit, self.replaced_at)

    def shard(self, path: str) -> Shard:
        """The row of one of its files."""
        return as_of(self.checkpoint.shards.filter(path=path), self.replaced_at)[path]


def signed() -> QuerySet[Checkpoint]:
    """Every checkpoint with a signed manifest, the newest first; ``commit`` is added to each."""
    bundle = Shard.objects.manifest().filter(checkpoint=OuterRef("pk"), path=BUNDLE_NAME)
    commits = bundle.order_by("pk").annotate(start=Left("sha256", 40)).values("start")[:1]
    return (
        Checkpoint.objects.select_related("family")
        .annotate(commit=Subquery(commits))
        .exclude(commit=None)
        .order_by("-published_at", "-pk")
    )


def versions_of(name: str) -> QuerySet[Checkpoint]:
    """The versions of the repository ``name``, the newest first; none where there is none such."""
    match = REPOSITORY.fullmatch(name)
    if match is None:
        return signed().none()
    return signed().filter(family__slug=match[1], variant=match[2])


def newest() -> QuerySet[Checkpoint]:
    """The newest version of each repository."""
    later = Checkpoint.objects.filter(
        Q(published_at__gt=OuterRef("published_at"))
        | Q(published_at=OuterRef("published_at"), pk__gt=OuterRef("pk")),
        family=OuterRef("family"),
        variant=OuterRef("variant"),
        shards__in=Shard.objects.manifest().filter(path=BUNDLE_NAME),
    )
    return signed().filter(~Exists(later))


def find(name: str, revision: str = MAIN) -> Repository:
    """Return the repository ``name`` at ``revision``: `main`, a version, or a commit id.

    Raises:
        Refusal: there is none such.
    """
    versions = versions_of(name)
    if COMMIT.fullmatch(revision) and (found := _at_commit(versions, revision)):
        return found
    if revision != MAIN:
        named = VERSION.fullmatch(revision)
        versions = versions.filter(version=revision) if named else versions.none()
    checkpoint = versions.first()
    if checkpoint is None:
        raise missing(name, revision)
    return Repository(checkpoint, commit_of(checkpoint))


def commit_of(checkpoint: Checkpoint) -> str:
    """Return the newest commit id of a checkpoint that came out of `signed`."""
    commit: str = checkpoint.commit  # type: ignore[attr-defined]  # annotated there
    return commit


def missing(name: str, revision: str = MAIN) -> Refusal:
    """Say that there is no such repository, or which revisions it has."""
    known = list(versions_of(name).values_list("version", flat=True)[:10])
    if not known:
        return Refusal(f"{name[:200]} is not published here.", 404, NO_REPOSITORY)
    return Refusal(
        f"{name} has no revision {revision[:100]!r}; it has {MAIN} and {', '.join(known)}.",
        404,
        NO_REVISION,
    )


def _at_commit(versions: QuerySet[Checkpoint], commit: str) -> Repository | None:
    bundles = Shard.objects.filter(is_manifest=True, path=BUNDLE_NAME, sha256__startswith=commit)
    bundle = (
        bundles.filter(checkpoint__in=versions.values("pk"))
        .select_related("checkpoint__family")
        .first()
    )
    return Repository(bundle.checkpoint, commit, bundle.replaced_at) if bundle else None


def matching(found: QuerySet[Checkpoint], words: str) -> QuerySet[Checkpoint]:
    """Those of ``found`` whose name holds each of ``words``."""
    for word in words.split():
        for part in word.split("/", 1):
            found = found.filter(Q(family__slug__icontains=part) | Q(variant__icontains=part))
    return found
