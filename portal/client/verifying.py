"""Verify a copy with what a portal publishes: its manifests, and sketches where a token opens them.

Everything fetched becomes arguments of `python -m verifier`. Keys never come from the portal.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from verifier import keys
from verifier.errors import InputError
from verifier.manifest import BUNDLE_NAME
from verifier.names import shown
from verifier.verify import checkpoints_in

from . import catalogue
from .errors import RefusedError
from .site import Site


@contextlib.contextmanager
def arguments_from(site: Site, given: argparse.Namespace) -> Iterator[list[str]]:
    """Fetch what the checkpoint that was named needs, or every one; give the verifier's arguments.

    Where the person gave a manifest, or PATH holds one and no checkpoint was named, nothing is
    fetched. Sketches are secret: they lie in a folder of mode 0700 until the block ends.

    Raises:
        InputError: no key is trusted.
        ClientError: the portal cannot be asked, or does not publish what was named.
    """
    if given.manifest or (not given.checkpoint and has_manifest(given.path or given.official)):
        yield []
        return
    named = given.trusted_key or given.identity
    if not (named or keys.installed_keys(keys.data_folder())):
        raise InputError(
            f"No key is trusted here, and keys are not taken from a portal: ask the operators of "
            f"{site.url} for their release key by another way (`manage.py keys export` prints it) "
            "and give it with --trusted-key FILE."
        )
    with tempfile.TemporaryDirectory(prefix="weighbridge-sketches-") as secret:
        yield _fetched(site, given.checkpoint, Path(secret), want_sketch=not given.sketch)


def has_manifest(path: Path | None) -> bool:
    """Tell whether a manifest lies at PATH, or in the folders of it, as where no other is given."""
    if path is None:
        return False
    folder = path if path.is_dir() else path.parent
    return (folder / BUNDLE_NAME).is_file() or bool(checkpoints_in(path))


def _fetched(site: Site, name: str | None, secret: Path, *, want_sketch: bool) -> list[str]:
    found = [catalogue.one(site, name)] if name else list(catalogue.published(site))
    if not found:
        raise InputError(f"Nothing is published at {shown(site.url)} yet.")
    folder = catalogue.cache_folder(site)
    manifests = [catalogue.fetch_manifest(site, checkpoint, folder) for checkpoint in found]
    arguments = [] if name else ["--identify"]
    arguments += [part for bundle in manifests for part in ("--manifest", str(bundle))]
    if want_sketch and site.token:
        sketches = [
            _sketch(site, checkpoint.name, secret / f"{number}.json")
            for number, checkpoint in enumerate(found)
        ]
        if any(sketches):
            arguments += [part for made in sketches for part in ("--sketch", str(made or "-"))]
    return arguments


def _sketch(site: Site, name: str, target: Path) -> Path | None:
    """Fetch a sketch; None where this token opens none or there is none."""
    try:
        data = catalogue.fetch_sketch(site, name)
    except RefusedError:
        return None
    target.write_bytes(data)
    return target
