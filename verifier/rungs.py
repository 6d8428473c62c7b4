"""How far answers may lie from the published ones for what the weights were found to be.

A model carries rounding of its weights through the layers as it carries rounding of fp32: by the
ratio of the unit roundoffs, 2⁻²⁴ to that of the type. So the bound of a rung follows from ``eps64``,
how far fp32 is from fp64 on this very model.
"""

import re

UNIT32 = 2.0**-24
_UNITS = {"cast:fp16-rne": 2.0**-11, "cast:bf16-rne": 2.0**-8, "cast:bf16-trunc": 2.0**-7}
_BITS = re.compile(r"quantized:\D*([2-8])(?!\d)")
WIDEST_BOUND = 1.0
"""Beyond one standard deviation of the logits nothing is close, whatever the rung."""


def bound_of(rung: str | None, eps64: float) -> float | None:
    """Return the error that a cast or quantization may have, relative to the logits' spread.

    None where no rung was named, or none that is known.
    """
    if rung is None:
        return None
    unit = _UNITS.get(rung)
    if unit is None:
        bits = _BITS.match(rung)
        if bits is None:
            return None
        unit = 2.0 ** -int(bits.group(1))
    return min(WIDEST_BOUND, max(eps64, UNIT32) * unit / UNIT32)


def close_reason(rung: str, bound: float) -> str:
    """Say what ``close`` means."""
    return (
        f"computes alike within the error of {rung}, {bound:.1e} of the logits' spread; "
        "these are not the official values"
    )
