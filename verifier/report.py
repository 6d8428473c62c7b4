"""The result of one verification, as data and as text for a terminal.

The JSON form is ``weighbridge.report/1``. Named fields keep their meaning; fields may be added.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import report_evidence
from .findings import Code, FileResult, FileStatus, Finding, Verdict
from .names import shown

SCHEMA = "weighbridge.report/1"
MAX_LINES = 12

MEANINGS = {
    Verdict.UNTRUSTED: "the manifest cannot be trusted, so the copy was not compared with it",
    Verdict.IDENTICAL: "every file is there, byte for byte as it was signed",
    Verdict.INCOMPLETE: "what is there is right; files are missing",
    Verdict.SAME_WEIGHTS: "other files, but every tensor has the official values",
    Verdict.CAST: "every tensor is the official one rounded to another float type",
    Verdict.QUANTIZED: "every tensor is the official one within a quantization's error",
    Verdict.DAMAGED: "files differ from what was signed, in the byte ranges named",
    Verdict.DERIVED: "not the official weights, but descended from them",
    Verdict.UNRELATED: "these weights are not from this checkpoint",
    Verdict.UNDETERMINED: "other weights, and nothing here can say whether they descend from it",
}
"""What each verdict says, to end a sentence with."""

_MATCHES = "every file matches the list, which nobody signed"
_ONE_FILE = "the file is, byte for byte, as it was signed; others were not looked at"
_CLAIMS = {
    Verdict.UNTRUSTED: "The manifest of {} is untrusted",
    Verdict.SAME_WEIGHTS: "This copy has the same weights as {}",
    Verdict.CAST: "This copy is a cast of {}",
    Verdict.QUANTIZED: "This copy is {}, quantized",
    Verdict.DERIVED: "This copy is derived from {}",
    Verdict.UNRELATED: "This copy is unrelated to {}",
    Verdict.UNDETERMINED: "Whether this copy descends from {} is undetermined",
}
"""How the conclusion names the checkpoint; the other verdicts are properties of a copy of it."""

REMEDIES = {
    Verdict.INCOMPLETE: "download the missing files",
    Verdict.DAMAGED: "mend it with repair, or download the damaged files again",
    Verdict.UNRELATED: "check where this copy came from",
    Verdict.DERIVED: "check where this copy came from",
    Verdict.UNDETERMINED: "check where this copy came from, or ask the portal to look at it",
}


COPIES = (Verdict.DAMAGED, Verdict.INCOMPLETE)
"""What is found to be a copy that is not whole; that its tensors are alike says nothing more."""

_WEIGHTS = (
    Code.NOT_REDERIVED,
    Code.WEIGHTS_DIFFER,
    Code.WEIGHTS_NOT_COMPARED,
    Code.WEIGHTS_REFUSED,
)
_TELLING = {
    Verdict.UNTRUSTED: (Code.REVOKED, Code.BAD_SIGNATURE, Code.ROLLBACK),
    Verdict.INCOMPLETE: (Code.MISSING,),
    Verdict.DAMAGED: (
        Code.DAMAGED,
        Code.WHOLE_DIFFERS,
        Code.LINK,
        Code.NOT_A_FILE,
        Code.UNREADABLE,
        Code.CHANGED,
    ),
    Verdict.DERIVED: _WEIGHTS,
    Verdict.UNRELATED: _WEIGHTS,
    Verdict.UNDETERMINED: _WEIGHTS,
}
"""Which finding says most about a verdict, the first that there is."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run on one copy.

    ``single``: PATH was one file, and only its entry was compared.
    ``tried`` counts the checkpoints among which this one was found; 0 where it was named.
    ``refusals`` are findings that end in status 1 whatever verdict is accepted; ``accepted``
    are the verdicts that the person asked for. ``subjects`` has the SHA-256 of every file looked
    at, by name, where the report is to be attested. ``challenge`` is the copy's answer to one,
    which only the portal that drew it can judge.
    """

    path: str
    checkpoint: str | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    files: tuple[FileResult, ...]
    weights: dict[str, Any]
    inference: dict[str, Any]
    manifest: dict[str, Any]
    bytes_read: int
    seconds: float
    accepted: frozenset[Verdict] = frozenset({Verdict.IDENTICAL})
    refusals: tuple[Finding, ...] = field(default=())
    subjects: Mapping[str, str] = field(default_factory=dict)
    tried: int = 0
    single: bool = False
    challenge: Mapping[str, Any] | None = None

    @property
    def claim(self) -> str:
        """What the copy is, without a full stop: of the checkpoint named, or of those tried."""
        name = shown(self.checkpoint or "the checkpoint")
        if not self.tried or self.verdict is Verdict.UNTRUSTED:
            if self.manifest.get("files") and not self.manifest.get("signed_by"):
                name = f"what {name} lists"
            other = "This {} of {{}} is {}".format(
                "file" if self.single else "copy", self.verdict.value
            )
            return _CLAIMS.get(self.verdict, other).format(name)
        among = (
            "the one checkpoint" if self.tried == 1 else f"any of the {self.tried:,} checkpoints"
        )
        if self.verdict is Verdict.UNRELATED:
            return f"This is not {among} known here"
        if self.verdict is Verdict.UNDETERMINED:
            return f"This is not a copy of {among} known here, and may descend from one"
        if self.verdict is Verdict.DERIVED:
            return f"This is derived from {name}"
        return f"This is {name}, {self.verdict.value}"

    @property
    def exit_status(self) -> int:
        """0 where the verdict is accepted and nothing contradicts it, else 1."""
        return 1 if self.objection else 0

    @property
    def objection(self) -> str | None:
        """Why the status is 1, or None: one sentence."""
        if self.verdict not in self.accepted:
            first = self._first_finding()
            if self.verdict is Verdict.UNTRUSTED:
                return first.message if first else f"{MEANINGS[self.verdict]}."
            reason = first.message.rstrip(".") if first else MEANINGS[self.verdict]
            remedy = REMEDIES.get(self.verdict, f"accept it with --accept {self.verdict.value}")
            return f"{self.claim}: {reason}; {remedy}."
        if self.refusals:
            return f"{self.claim}, but {self.refusals[0].message}"
        status = self.inference.get("status")
        if status == "disagrees":
            reason = self.inference.get("reason") or "its answers are not those published"
            return f"{self.claim}, but inference disagrees: {shown(str(reason))}."
        rounded = self.accepted & {Verdict.CAST, Verdict.QUANTIZED}
        if status == "close" and not rounded:
            return f"{self.claim}, but inference is only close to what is published."
        return None

    @property
    def sentence(self) -> str:
        """The last line on stderr: why, and what to do."""
        if self.objection:
            return self.objection.replace("\n", " ")
        return f"{self.claim}: {self.meaning}."

    @property
    def meaning(self) -> str:
        """What the verdict says."""
        signed = bool(self.manifest.get("signed_by"))
        if self.single and signed and self.verdict is Verdict.IDENTICAL:
            return _ONE_FILE
        return meaning(self.verdict, signed=signed)

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``weighbridge.report/1``."""
        challenge = {"challenge": dict(self.challenge)} if self.challenge else {}
        return challenge | {
            "schema": SCHEMA,
            "path": self.path,
            "checkpoint": self.checkpoint,
            "verdict": self.verdict.value,
            "accepted": self.exit_status == 0,
            "sentence": self.sentence,
            "meaning": self.meaning,
            "findings": [finding.as_json() for finding in self.findings],
            "files": [file.as_json() for file in self.files],
            "weights": self.weights,
            "inference": self.inference,
            "manifest": self.manifest,
            "bytes_read": self.bytes_read,
            "seconds": round(self.seconds, 3),
            "identified": {"tried": self.tried, "claim": self.claim} if self.tried else None,
        }

    def as_text(self) -> str:
        """Return at most a screen: the verdict first, then the rungs, then what was found."""
        title = f"{self.verdict.value.upper()}  {shown(self.checkpoint or 'unknown checkpoint')}"
        if self.tried:
            title = f"{self.claim}."
        lines = [title, f"  {self.meaning}", ""]
        lines += [f"  {rung:<10} {text}" for rung, text in self._rungs()]
        shown_findings = [finding for finding in self.findings if finding.code is not Code.UNLISTED]
        unlisted = len(self.findings) - len(shown_findings)
        if shown_findings or unlisted:
            lines.append("")
        lines += [f"  - {finding.message}" for finding in shown_findings[:MAX_LINES]]
        if len(shown_findings) > MAX_LINES:
            lines.append(f"  - and {len(shown_findings) - MAX_LINES:,} more; see --json")
        if unlisted:
            lines.append(f"  - not in the manifest, which is allowed: {unlisted:,}")
        rate = size(self.bytes_read / self.seconds if self.seconds else 0)
        lines += ["", f"  {size(self.bytes_read)} in {self.seconds:.1f} s ({rate}/s)"]
        return "\n".join(lines)

    def _rungs(self) -> list[tuple[str, str]]:
        by = self.manifest.get("signed_by")
        revision = self.manifest.get("revision")
        signature = "nobody signed the list"
        if by:
            signature = f"holds, by {signer(str(by))}" + (
                f", revision {revision}" if revision else ""
            )
        if self.verdict is Verdict.UNTRUSTED:
            signature = "does not hold"
        weights = self.weights.get("verdict") or self.weights.get("reason") or "not compared"
        evidence = report_evidence.lines(self.weights)
        if self.verdict in COPIES and report_evidence.changes(self.weights):
            weights, *evidence = report_evidence.changes(self.weights)
        if self.weights.get("scheme"):
            weights = f"{weights} ({shown(str(self.weights['scheme']))})"
        inference = str(self.inference.get("status"))
        if self.inference.get("reason"):
            inference += f" ({shown(str(self.inference['reason']))})"
        return [
            ("signature", signature),
            ("files", count_files(self.files)),
            ("weights", str(weights)),
            *self._rederived(),
            *(("", line) for line in evidence),
            ("inference", inference),
            *([("challenge", self._challenge())] if self.challenge else []),
        ]

    def _challenge(self) -> str:
        """Say whether there is an answer; what it is worth only the portal can say."""
        answered = (self.challenge or {}).get("reason")
        return (
            shown(f"not answered: {answered}") if answered else "answered, for the portal to judge"
        )

    def _rederived(self) -> list[tuple[str, str]]:
        found = self.weights.get("rederived")
        if not found:
            return []
        status = "" if found["status"] == "rederived" else f"{found['status']}: "
        return [("rederived", shown(f"{status}{found['reason']}"))]

    def _first_finding(self) -> Finding | None:
        """Return the finding that says most about the verdict."""
        wanted = _TELLING.get(self.verdict, ())
        return next((f for code in wanted for f in self.findings if f.code is code), None)


def meaning(verdict: Verdict, *, signed: bool) -> str:
    """Return what ``verdict`` says of a signed manifest, or of a list that nobody signed."""
    return _MATCHES if verdict is Verdict.IDENTICAL and not signed else MEANINGS[verdict]


def signer(signed_by: str) -> str:
    """Return who signed, in words: a key by the start of its hint, others by their name."""
    if re.fullmatch(r"[0-9a-f]{64}", signed_by):
        return f"key {signed_by[:16]}…"
    return shown(re.sub(r"([0-9a-f]{16})[0-9a-f]{48}$", r"\1…", signed_by))


def size(number: float) -> str:
    """Return a number of bytes with the unit that suits it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.2f} {unit}"
    return f"{number:,.0f} B"


def count_files(files: Collection[FileResult]) -> str:
    """Return how many files have which status, in words."""
    counts = {
        status: sum(file.status is status for file in files)
        for status in FileStatus
        if status is not FileStatus.UNLISTED
    }
    return (
        ", ".join(f"{n:,} {status.value}" for status, n in counts.items() if n) or "none compared"
    )
