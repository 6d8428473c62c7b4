"""Is the manifest in use the newest, by what the publisher says and by what was seen here before?

Three sources, none of which the copy brings along: the root and the latest.json beside it, and
what this machine remembers (state.py). What they refuse makes the verdict `untrusted`; what they
tell besides are findings: `stale`, `recalled`, `newer-version`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import names, state, strict_json
from .errors import ManifestError, SignatureError
from .findings import Code, Finding
from .manifest import Manifest

if TYPE_CHECKING:
    from .latest import Latest, TrustedRoot
    from .roots import Root


@dataclass(frozen=True, slots=True)
class Judgement:
    """What freshness says of one manifest; ``stale`` is None where nobody says what is newest."""

    refusal: Finding | None = None
    findings: tuple[Finding, ...] = ()
    stale: bool | None = None

    def on(self, found: Manifest) -> Manifest:
        """Return the manifest with what was found about it."""
        more = (*found.findings, *self.findings)
        return dataclasses.replace(found, findings=more, stale=self.stale)


@dataclass(frozen=True, slots=True)
class Freshness:
    """What is known here about what is newest: trusted roots, this machine's memory, the time."""

    roots: Sequence[TrustedRoot]
    data: Path | None
    at: datetime

    def judge(self, found: Manifest) -> Judgement:
        """Say whether ``found``, whose signature holds, may be used, and how fresh it is."""
        revoked = self._why_revoked(found.statement.signed_by)
        if revoked:
            return Judgement(revoked)
        trusted, scope = self._root_of(found), self._scope_of(found)
        if trusted:
            from . import roots

            refusal = _older_root(trusted.root, state.newest_seen(self.data, scope, roots.NAME))
            if refusal:
                return Judgement(refusal)
            state.remember(self.data, scope, roots.NAME, trusted.root.version)
        seen = state.newest_seen(self.data, scope, found.name)
        if found.revision is not None and found.revision < seen:
            return Judgement(_rollback(found, seen, "was seen here before"))
        if trusted is None:
            return Judgement()
        said = trusted.latest
        refusal = _contradicted(found, said) if said else None
        if refusal:
            return Judgement(refusal)
        stale = _why_stale(trusted, self.data, self.at)
        findings = [Finding(Code.STALE, "", reason) for reason in stale]
        findings += _told(found, said) if said else ()
        return Judgement(None, tuple(findings), bool(stale) if said or stale else None)

    def remember(self, found: Manifest) -> None:
        """Remember the revision of ``found``, where it has one."""
        if found.revision is not None:
            state.remember(self.data, self._scope_of(found), found.name, found.revision)

    def explain(self, bundle: bytes, error: SignatureError) -> Finding:
        """Say why a signature counts for nothing: its key was revoked, or else ``error``."""
        try:
            outer = strict_json.loads(bundle, "The signature bundle", max_bytes=len(bundle))
            keyid = outer["verificationMaterial"]["publicKey"]["hint"]
        except (ManifestError, KeyError, TypeError):
            keyid = None
        revoked = self._why_revoked(keyid) if isinstance(keyid, str) else None
        return revoked or Finding(Code.BAD_SIGNATURE, "", str(error))

    def _root_of(self, found: Manifest) -> TrustedRoot | None:
        """Return the root that names the key which signed ``found``, if one does."""
        signer = found.statement.signed_by
        return next((r for r in self.roots if signer in r.root.roles["release"].keyids), None)

    def _scope_of(self, found: Manifest) -> str:
        """Return under which name this machine remembers what it saw: the root's, else the key's."""
        trusted = self._root_of(found)
        return trusted.root.identity if trusted else found.statement.anchor

    def _why_revoked(self, keyid: str) -> Finding | None:
        """Return the finding that a root or a latest.json revoked this key, if one did."""
        for one in self.roots:
            if keyid in one.root.revoked:
                return _revoked(keyid, one.root.revoked[keyid].reason)
            if one.latest and keyid in one.latest.revoked:
                return _revoked(keyid, one.latest.revoked[keyid])
        return None


def _older_root(root: Root, seen: int) -> Finding | None:
    if root.version >= seen:
        return None
    message = (
        f"The root given is version {root.version}, but version {seen} was seen here before; "
        "get the newest root.json from the publisher."
    )
    return Finding(Code.ROLLBACK, "", message)


def _rollback(found: Manifest, newest: int, why: str) -> Finding:
    message = (
        f"The manifest of {names.shown(found.name)} is revision {found.revision}, but revision "
        f"{newest} {why}; get the newest from the publisher."
    )
    return Finding(Code.ROLLBACK, "", message)


def _revoked(keyid: str, reason: str) -> Finding:
    message = (
        f"The manifest is signed by a key that its publisher revoked ({keyid[:16]}…: "
        f"{reason.rstrip('.')}); get the newest manifest from the publisher."
    )
    return Finding(Code.REVOKED, "", message)


def _contradicted(found: Manifest, said: Latest) -> Finding | None:
    """Return why the publisher's word, even if it is an old one, forbids this manifest."""
    newest = said.checkpoints.get(found.name)
    if newest is None or found.revision is None:
        return None
    if found.revision < newest.revision:
        return _rollback(found, newest.revision, "is the publisher's newest")
    if found.revision == newest.revision and found.statement.digest != newest.statement:
        message = (
            f"The manifest of {names.shown(found.name)} is not the revision {found.revision} that "
            "its publisher names in latest.json; get it again from the publisher."
        )
        return Finding(Code.BAD_SIGNATURE, "", message)
    return None


def _why_stale(trusted: TrustedRoot, data: Path | None, at: datetime) -> list[str]:
    """Return why nobody can say from what lies here what is newest."""
    from . import latest

    root, said = trusted.root, trusted.latest
    again = "get the newest from the publisher"
    reasons = []
    if root.expires_at <= at:
        reasons.append(f"The root expired on {root.expires_at:%d %B %Y}; {again}.")
    if trusted.reason:
        reasons.append(f"latest.json was not used: {trusted.reason}")
    if said is None:
        return reasons
    issued = int(said.issued_at.timestamp())
    if said.expires_at <= at:
        reasons.append(f"latest.json expired on {said.expires_at:%d %B %Y}; {again}.")
    elif issued < state.newest_seen(data, root.identity, latest.NAME):
        reasons.append(f"latest.json is older than one that was seen here before; {again}.")
    if said.root_version > root.version:
        reasons.append(
            f"The root given is version {root.version}, and version {said.root_version} is the "
            f"publisher's; {again} root.json."
        )
    state.remember(data, root.identity, latest.NAME, issued)
    return reasons


def _told(found: Manifest, said: Latest) -> list[Finding]:
    """Return what the publisher says about this checkpoint besides."""
    findings = []
    shown = names.shown(found.name)
    recall = said.recalls.get(found.name)
    if recall:
        instead = f"; use {recall.replacement} instead" if recall.replacement else ""
        message = f"{shown} was recalled: {recall.reason.rstrip('.')}{instead}."
        findings.append(Finding(Code.RECALLED, "", message))
    newer = said.newer_version(found.name)
    if newer:
        message = f"{names.shown(newer)} is newer than {shown}."
        findings.append(Finding(Code.NEWER_VERSION, "", message))
    return findings
