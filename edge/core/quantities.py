"""Kubernetes quantities (``500m``, ``64Mi``) as whole numbers, exactly: no floats.

Source: k8s.io/apimachinery resource.Quantity; values are rounded up, as Quantity.Value() and MilliValue() do.
"""

from __future__ import annotations

import re
from fractions import Fraction

_QUANTITY = re.compile(
    r"\s*([+-]?(?:\d{1,30}(?:\.\d{0,18})?|\.\d{1,18}))(?:[eE]([+-]?\d{1,2})|(m|u|n|k|[MGTPE]i?|Ki)?)\s*\Z", re.ASCII
)
_SUFFIX: dict[str, Fraction] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "k": Fraction(10**3),
    **{s: Fraction(10 ** (3 * n)) for n, s in enumerate("MGTPE", start=2)},
    **{f"{s}i": Fraction(2 ** (10 * n)) for n, s in enumerate("KMGTPE", start=1)},
}


def parse(text: object) -> Fraction:
    """The exact value; raises ValueError for what is not a quantity."""
    match = _QUANTITY.match(str(text))
    if match is None or isinstance(text, bool):
        raise ValueError(f"{str(text)[:60]!r} is not a quantity such as 500m or 64Mi")
    number, exponent, suffix = match.groups()
    scale = Fraction(10) ** int(exponent) if exponent else _SUFFIX[suffix or ""]
    return Fraction(number) * scale


def whole(text: object) -> int:
    """Bytes, or pieces, rounded up."""
    value = parse(text)
    return -(-value.numerator // value.denominator)


def milli(text: object) -> int:
    """Thousandths (milli-CPU), rounded up."""
    value = parse(text) * 1000
    return -(-value.numerator // value.denominator)
