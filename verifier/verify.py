"""Verify a copy: is this what was signed?

signature → files → weights (where files differ) → inference → verdict. What differs is data in the
report; an error means that there was nothing trustworthy to compare with.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import engine, inference_run, manifest, oms, resume, verdict, weights_check
from .digests import blake3_available
from .errors import InputError, ManifestError, SignatureError
from .files_check import FilesCheck, Hasher, check_files, without_ignored
from .findings import Code, FileStatus, Finding, Verdict
from .freshness import Freshness
from .inference_run import InferenceOptions
from .manifest import Manifest, ManifestFile
from .progress import Progress, silent
from .readers import is_weight_file
from .report import Report
from .trust import Trust
from .walk import Listing, look_up, resolve_root, walk
from .weights_check import Damage, WeightsCheck

CHECKS = ("files", "weights", "inference")


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for. ``checks`` None: files, weights if files differ, inference.

    ``attest``: the report will be attested, so the SHA-256 of every file is needed. ``identify``:
    say which of the manifests it is, if any. ``sketches``: one for each manifest, where there is one.
    """

    trust: Trust
    manifests: tuple[Path, ...] = ()
    checks: frozenset[str] | None = None
    digest: str = "blake3"
    whole: bool = False
    accepted: frozenset[Verdict] = frozenset({Verdict.IDENTICAL})
    sketch: Path | None = None
    official: Path | None = None
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    data: Path | None = None
    resume: bool = False
    attest: bool = False
    identify: bool = False
    sketches: tuple[Path | None, ...] = ()

    def sketch_for(self, location: Path) -> Path | None:
        """Return the sketch that was given with the manifest at ``location``."""
        return dict(zip(self.manifests, self.sketches, strict=False)).get(location, self.sketch)

    def wants(self, check: str) -> bool:
        """Tell whether ``check`` was asked for; files are always looked at."""
        return self.checks is None or check in self.checks


def verify(path: Path, options: Options, progress: Progress) -> Report:
    """Verify the copy at ``path``, a folder or one file.

    Raises:
        InputError: ``path`` is not there or cannot be opened, or no key is trusted.
        ManifestError: there is no manifest, or it is malformed.
    """
    return _Verification(path, options, progress).run()


def trusted_manifests(path: Path, options: Options) -> tuple[list[Manifest], list[Finding]]:
    """Return the manifests for ``path`` that can be trusted, and why others cannot be.

    Raises:
        InputError: ``path`` is not there or cannot be opened, or no key is trusted.
        ManifestError: there is no manifest, or it is malformed.
    """
    return _Verification(path, options, silent)._load_manifests()


def checkpoints_in(path: Path) -> list[Path]:
    """Return the checkpoints in a folder of checkpoints: none where ``path`` is one, or a file."""
    if not path.is_dir() or (path / manifest.BUNDLE_NAME).exists():
        return []
    found = (bundle.parent for bundle in path.glob(f"*/{manifest.BUNDLE_NAME}") if bundle.is_file())
    return sorted(folder for folder in found if not folder.is_symlink())


@dataclass(slots=True)
class _Candidate:
    """A manifest that the copy may be a copy of, and what became of the files."""

    manifest: Manifest
    listing: Listing
    files: Mapping[str, ManifestFile]
    check: FilesCheck

    @property
    def evidence(self) -> verdict.Evidence:
        """What the files say."""
        listed = {r.path: r.status for r in self.check.results if r.path in self.files}
        others = [result.path for result in self.check.named(FileStatus.UNLISTED)]
        others += [f.path for f in self.listing.findings if f.path not in listed]
        return verdict.Evidence(
            listed=listed,
            weight_files=frozenset(filter(is_weight_file, listed)),
            other_weights=tuple(filter(is_weight_file, others)),
        )


class _Verification:
    """One run; its methods are the rungs of the ladder, from the cheapest."""

    def __init__(self, path: Path, options: Options, progress: Progress) -> None:
        self.options = options
        self.progress = progress
        self.started = time.monotonic()
        self.freshness = Freshness(options.trust.roots, options.data, datetime.now(UTC))
        self.path = path
        self.root = resolve_root(path)
        self.single = self.root.is_file()
        kinds = ("blake3", "sha256") if options.digest == "blake3" else ("sha256",)
        if not blake3_available():
            kinds = ("sha256",)
        self.hasher = Hasher(kinds, options.whole, progress)
        self.tried, self.matched = 0, True
        self.answer: dict[str, Any] | None = None

    def run(self) -> Report:
        """Climb the ladder and report."""
        if not self.options.resume:
            return self._run()
        with resume.journal(resume.folder(self.options.data), self.root) as journal:
            self.hasher.journal = journal
            return self._run()

    def _run(self) -> Report:
        manifests, refused = self._load_manifests()
        if not manifests:
            return self._untrusted(refused[0])
        listing = walk(self.root, skip=self._own_names())
        if len(manifests) == 1 and self.options.wants("inference") and not self.single:
            from . import one_pass

            self.answer = one_pass.run_first(
                listing, manifests[0], self.hasher, self.options.inference, self.progress
            )
        best = self._best(listing, manifests)
        found = best.manifest
        self.freshness.remember(found)
        return self._conclude(best)

    def _own_names(self) -> list[str]:
        """Return the names in the copy that are ours: the manifest in use, and its side files."""
        own = [manifest.BUNDLE_NAME, manifest.SIDE_FOLDER]
        for location in self.options.manifests:
            place = location.parent.resolve() / location.name
            if place.is_relative_to(self.root) and place != self.root:
                own.append(str(place.relative_to(self.root)))
        return own

    def _load_manifests(self) -> tuple[list[Manifest], list[Finding]]:
        """Return the manifests that can be trusted, and why others cannot."""
        folder = self.root.parent if self.single else self.root
        locations = self.options.manifests or (folder / manifest.BUNDLE_NAME,)
        if not self.options.manifests and not locations[0].exists():
            raise ManifestError(
                f"There is no manifest: {locations[0]} is not there; give one with --manifest FILE."
            )
        loaded: list[Manifest] = []
        untrusted: list[Finding] = []
        malformed: ManifestError | None = None
        for location in locations:
            try:
                found = self._load(location)
                judged = self.freshness.judge(found)
                if judged.refusal is None:
                    loaded.append(judged.on(found))
                else:
                    untrusted.append(judged.refusal)
            except SignatureError as error:
                bundle = manifest.read_bounded(location, oms.MAX_BUNDLE_BYTES)
                untrusted.append(self.freshness.explain(bundle, error))
            except ManifestError as error:
                malformed = malformed or error
        if malformed and not loaded and not untrusted:
            raise malformed
        return loaded, untrusted

    def _load(self, location: Path) -> Manifest:
        """Read a bundle or, where a person gave one, an unsigned list of digests."""
        data = manifest.read_bounded(location, oms.MAX_BUNDLE_BYTES)
        if self.options.manifests:
            from . import lists

            if lists.is_list(data):
                return lists.load(location)
        if not self.options.trust:
            raise InputError(
                "No key is trusted here; ask the publisher for the public key and give it with "
                "--trusted-key FILE."
            )
        return manifest.load(location, self.options.trust)

    def _best(self, listing: Listing, manifests: Sequence[Manifest]) -> _Candidate:
        """Return the manifest that the copy matches best: by files, values, else sketches."""
        if len(manifests) == 1 and not self.options.identify:
            return self._compare(listing, manifests[0])
        from . import identify

        if listing.truncated:
            look_up(listing, {name for found in manifests for name in found.files})
        match = identify.best(
            listing,
            manifests,
            self.hasher,
            lambda index: self._sketch(manifests[index]),
            weights=self.options.wants("weights"),
        )
        if self.options.identify:
            self.tried, self.matched = len(manifests), match.is_match
        return self._compare(listing, manifests[match.index])

    def _compare(self, listing: Listing, found: Manifest) -> _Candidate:
        """Compare the files of the copy with one manifest."""
        files = dict(found.files)
        if self.single:
            files = self._entry_of(listing, found)
        else:
            look_up(listing, files if listing.truncated else ())
        visible = without_ignored(listing, found.statement, files)
        return _Candidate(
            found, visible, files, check_files(visible, files, self.hasher, only=self.single)
        )

    def _entry_of(self, listing: Listing, found: Manifest) -> dict[str, ManifestFile]:
        """Return the entry of the one file looked at: by name, else by digest, else nothing."""
        name, called = self.root.name, self.path.name  # they differ where PATH is a link
        by_name = [entry for n, entry in found.files.items() if n in (called, ".")]
        by_name += [e for n, e in found.files.items() if n.rpartition("/")[2] == called]
        sizes = {entry.size for entry in found.files.values()}
        if not by_name and name in listing.files and {None, listing.files[name].size} & sizes:
            kinds = tuple(sorted({entry.algorithm for entry in found.files.values()}))
            job = engine.Job(listing.files[name], whole_kinds=kinds)
            digests = self.hasher.run([job])[job].whole.values()
            by_name = [entry for entry in found.files.values() if entry.whole in digests]
        return {name: replace(by_name[0], name=name)} if by_name else {}

    def _weights(self, best: _Candidate, *, needed: bool = False) -> WeightsCheck:
        loaded = self._sketch(best.manifest)
        return weights_check.check_weights(
            best.listing, best.manifest, loaded, self.progress, needed=needed
        )

    def _rederive(self, best: _Candidate, weights: WeightsCheck) -> None:
        if self.options.official is not None:
            from . import official

            folder, listing = self.options.official, best.listing
            official.rederive(weights, listing, best.manifest, folder, self.hasher, self.progress)

    def _sketch(self, found: Manifest) -> Mapping[str, Any] | None:
        sketch = self.options.sketch_for(found.location)
        return weights_check.load_sketch(sketch) if sketch else None

    def _conclude(self, best: _Candidate) -> Report:
        """Compare weights where that decides, run inference, and name the verdict."""
        evidence = replace(best.evidence, asked_weights=self.options.wants("weights"))
        decided = verdict.by_files(evidence)
        asked = self.options.checks is not None and "weights" in self.options.checks
        damage = Damage()
        if evidence.differing:
            listed = [result for result in best.check.results if result.path in best.files]
            damage = weights_check.look_at_damage(best.listing, listed, best.manifest)
        if not self.options.wants("weights"):
            weights = weights_check.not_compared("it was not asked for", asked=False)
        elif decided is None or asked:
            weights = self._weights(best, needed=decided is None)
            self._rederive(best, weights)
        else:
            weights = weights_check.not_compared("the files decide", asked=False)
        changed = weights.changed_tensors if weights.compared else damage.changed_share
        evidence = replace(
            evidence,
            weights=weights.verdict,
            unparsable=damage.unparsable,
            changed_entries=weights.changed_entries,
            changed_tensors=changed,
        )
        final = verdict.conclude(evidence)
        if not self.matched:
            final = verdict.of_no_match(final, evidence)
        findings = [
            weights_check.with_tensor_names(finding, damage.touched, weights.exact)
            for finding in best.check.findings
        ]
        findings += [
            *weights.findings,
            *(f for f in damage.findings if f.path not in {w.path for w in weights.findings}),
        ]
        inference = self._inference(best, final, weights.rung)
        if inference["status"] == "disagrees":
            reason = inference.get("reason") or "its answers are not those published"
            message = f"Inference disagrees: {reason}".rstrip(".") + "."
            findings.append(Finding(Code.INFERENCE_DISAGREES, "", message))
        return self._report(best, final, findings, weights, inference)

    def _inference(self, best: _Candidate, final: Verdict, rung: str | None) -> dict[str, Any]:
        """Run the inference check, or say why not."""
        reference = best.manifest.side_file(manifest.REFERENCE)
        if not self.options.wants("inference"):
            return inference_run.not_run("it was not asked for")
        if self.single:
            return inference_run.not_run("a single file cannot be run")
        if final is Verdict.INCOMPLETE:
            return inference_run.not_run("the copy is incomplete")
        if reference is None:
            return inference_run.not_run("the manifest has no reference")
        weights = [f for name, f in best.listing.files.items() if is_weight_file(name)]
        if not weights:
            return inference_run.not_run("the copy holds no weight file")
        if self.answer is not None:
            return inference_run.with_rung(self.answer, rung)
        return inference_run.run(
            self.root,
            reference,
            manifest.published_configs(best.manifest),
            sum(file.size for file in weights),
            self.options.inference,
            self.progress,
            rung,
        )

    def _report(
        self,
        best: _Candidate,
        final: Verdict,
        findings: Sequence[Finding],
        weights: WeightsCheck,
        inference: dict[str, Any],
    ) -> Report:
        proven = {result.path for result in best.check.named(FileStatus.GOOD)}

        def needed(finding: Finding) -> bool:
            if finding.path in proven:
                return False  # its bytes are right, whatever a reader makes of them
            is_weight = bool(finding.path) and is_weight_file(finding.path)
            return finding.code.is_refusal and verdict.is_needed(
                final, finding.path, best.files, is_weight=is_weight
            )

        return Report(
            path=str(self.path),
            checkpoint=best.manifest.name,
            verdict=final,
            findings=(*findings, *best.manifest.findings),
            files=tuple(best.check.results),
            weights=weights.report,
            inference=inference,
            manifest=manifest_json(best.manifest),
            bytes_read=self.hasher.bytes_read
            + weights.bytes_read
            + int(inference.get("bytes_read") or 0),
            seconds=time.monotonic() - self.started,
            accepted=self.options.accepted,
            refusals=tuple(filter(needed, findings)),
            subjects=self._subjects(best) if self.options.attest else {},
            tried=self.tried,
            single=self.single,
        )

    def _subjects(self, best: _Candidate) -> dict[str, str]:
        """Return the SHA-256 of every readable file of the copy: signed where it is good."""
        good = {result.path for result in best.check.named(FileStatus.GOOD)}
        digests = {name: entry.sha256 for name, entry in best.files.items() if name in good}
        jobs = {
            name: engine.Job(file, whole_kinds=("sha256",))
            for name, file in best.listing.files.items()
            if not digests.get(name)
        }
        found = self.hasher.run(jobs.values())
        computed = {name: found[job].whole.get("sha256", "") for name, job in jobs.items()}
        return {name: digest for name, digest in (digests | computed).items() if digest}

    def _untrusted(self, finding: Finding) -> Report:
        """Report that there is nothing to trust; nothing that was not signed is repeated."""
        reason = "the manifest is not trusted"
        return Report(
            path=str(self.path),
            checkpoint=None,
            verdict=Verdict.UNTRUSTED,
            findings=(finding,),
            files=(),
            weights={"status": "not-run", "reason": reason},
            inference=inference_run.not_run(reason),
            manifest=manifest_json(None),
            bytes_read=0,
            seconds=time.monotonic() - self.started,
            accepted=self.options.accepted,
        )


def manifest_json(found: Manifest | None) -> dict[str, Any]:
    """Return what a report says of the manifest in use."""
    return {
        "revision": found.revision if found else None,
        "signed_by": (found.statement.signed_by or None) if found else None,
        "stale": found.stale if found else None,
        "issued": found.issued if found else None,
        "digest": found.statement.digest if found else None,
        "files": len(found.files) if found else None,
    }
