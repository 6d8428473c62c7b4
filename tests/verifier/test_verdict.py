"""The table of verdicts: the first line that holds."""

import pytest

from verifier.findings import FileStatus, Verdict
from verifier.verdict import Evidence, conclude

GOOD, DAMAGED, MISSING = FileStatus.GOOD, FileStatus.DAMAGED, FileStatus.MISSING
REFUSED = FileStatus.REFUSED


def evidence(shard=GOOD, config=GOOD, **more):
    return Evidence(
        listed={"shard.safetensors": shard, "config.json": config},
        weight_files=frozenset({"shard.safetensors"}),
        **more,
    )


OTHER = {"other_weights": ("other.bin",)}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (evidence(), Verdict.IDENTICAL),
        (evidence(**OTHER), Verdict.IDENTICAL),
        (evidence(config=MISSING), Verdict.INCOMPLETE),
        (evidence(MISSING, MISSING), Verdict.INCOMPLETE),
        (evidence(config=DAMAGED), Verdict.DAMAGED),
        (evidence(config=DAMAGED, weights=Verdict.SAME_WEIGHTS), Verdict.DAMAGED),
        (evidence(MISSING, **OTHER), Verdict.UNDETERMINED),
        (evidence(MISSING, **OTHER, weights=Verdict.SAME_WEIGHTS), Verdict.SAME_WEIGHTS),
        (evidence(MISSING, **OTHER, weights=Verdict.CAST), Verdict.CAST),
        (evidence(MISSING, **OTHER, weights=Verdict.UNRELATED), Verdict.UNRELATED),
        (evidence(DAMAGED, weights=Verdict.SAME_WEIGHTS), Verdict.SAME_WEIGHTS),
        (evidence(DAMAGED, asked_weights=False), Verdict.DAMAGED),
        (evidence(DAMAGED, unparsable=frozenset({"shard.safetensors"})), Verdict.DAMAGED),
        (evidence(REFUSED, unparsable=frozenset({"shard.safetensors"})), Verdict.DAMAGED),
        (evidence(DAMAGED, changed_tensors=0.4), Verdict.DAMAGED),
        (evidence(DAMAGED, changed_tensors=0.5), Verdict.UNDETERMINED),
        (evidence(DAMAGED, changed_tensors=0.1, changed_entries=0.5), Verdict.UNDETERMINED),
        (evidence(DAMAGED, changed_tensors=0.9, changed_entries=0.001), Verdict.DAMAGED),
        (
            evidence(DAMAGED, changed_tensors=0.9, weights=Verdict.UNRELATED),
            Verdict.UNRELATED,
        ),
        (evidence(DAMAGED, changed_tensors=0.1, weights=Verdict.DERIVED), Verdict.DAMAGED),
        (evidence(DAMAGED, weights=Verdict.UNDETERMINED), Verdict.UNDETERMINED),
        (Evidence(listed={}, weight_files=frozenset()), Verdict.UNDETERMINED),
    ],
)
def test_the_first_line_that_holds_is_the_verdict(found, verdict):
    assert conclude(found) is verdict
