"""What the domain of an address says of its person, and which entry of which list says so.

An entry made in the admin comes before the lists that are shipped, `lists/academic.txt` and
`lists/free-mail.txt`; the longest domain that fits wins, and covers those below it.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from portal.accounts.models import DomainEntry

SHIPPED = {
    DomainEntry.Standing.INSTITUTION: "academic.txt",
    DomainEntry.Standing.FREE: "free-mail.txt",
}
FOLDER = Path(__file__).parent / "lists"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a list says: ``entry`` names the line, such as `academic.txt: ac.uk`."""

    standing: str
    domain: str
    entry: str


def standing_of(address: str) -> Standing | None:
    """Return what the lists say of an e-mail address, or None where they say nothing."""
    found = _suffixes(address)
    entries = {entry.domain: entry for entry in DomainEntry.objects.filter(domain__in=found)}
    for domain in found:
        if domain in entries:
            entry = entries[domain]
            name = f"list of domains, entry {entry.pk}: {domain}"
            return Standing(entry.standing, domain, name)
    for domain in found:
        for standing, name in SHIPPED.items():
            if domain in _shipped(name):
                return Standing(standing, domain, f"{name}: {domain}")
    return None


def _suffixes(address: str) -> list[str]:
    """Return the domain of ``address`` and those above it, the longest first."""
    labels = address.rpartition("@")[2].lower().rstrip(".").split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


@cache
def _shipped(name: str) -> frozenset[str]:
    lines = (FOLDER / name).read_text().splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
