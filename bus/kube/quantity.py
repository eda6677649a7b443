"""Resource quantities (``100m``, ``1.5Gi``), in the canonical form that the real server answers with.

Source: Kubernetes API conventions and apimachinery's resource.Quantity: a mantissa as whole as possible with the largest
suffix, in the family (decimal, binary, exponent) that it was written in.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

PATTERN = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))((?:[eE][+-]?[0-9]{1,2})|[numkMGTPE]|[KMGTPE]i)?\Z"
)
RULE = r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


class QuantityError(ValueError):
    """A text that is no quantity."""


class Amount(NamedTuple):
    """A number and the family that it is written in (decimal, binary, exponent)."""

    value: Fraction
    family: str = "decimal"

    def __str__(self) -> str:
        return render(self.value, self.family)

    def plus(self, other: Amount) -> Amount:
        """The family of the first that is not nothing."""
        return Amount(self.value + other.value, self.family if self.value else other.family)

    def minus(self, other: Amount) -> Amount:
        return Amount(self.value - other.value, self.family)


def parse(text: str | int | float) -> Fraction:
    """The number; raises QuantityError."""
    return _split(str(text))[0]


def _split(text: str) -> tuple[Fraction, str]:
    m = PATTERN.match(text.strip())
    if m is None:
        raise QuantityError(RULE)
    number, suffix = Fraction(Decimal(m[1])), m[2] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix]), "binary"
    if suffix in _DECIMAL:
        return number * Fraction(10) ** _DECIMAL[suffix], "decimal"
    return number * Fraction(10) ** int(suffix[1:]), "exponent"


def amount(text: str | int | float) -> Amount:
    """Raises QuantityError."""
    return Amount(*_split(str(text)))


def canonical(text: str | int | float) -> str:
    """``"1000m"`` -> ``"1"``, ``0.5`` -> ``"500m"``, ``"1024Mi"`` -> ``"1Gi"``; raises QuantityError."""
    return render(*_split(str(text)))


def thousandths(text: str) -> str:
    """A canonical quantity rounded up to thousandths; raises QuantityError."""
    value, family = _split(text)
    scaled = value * 1000
    if scaled.denominator == 1:
        return text
    return render(Fraction(-(-scaled.numerator // scaled.denominator), 1000), family)


def render(value: Fraction, family: str) -> str:
    """The canonical text; raises QuantityError for what has none."""
    if family == "binary" and abs(value) >= 1024:
        whole = -(-value.numerator // value.denominator)  # rounds up, as the real one does
        for suffix, bits in reversed(_BINARY.items()):
            if whole % (1 << bits) == 0:
                return f"{whole >> bits}{suffix}"
        return str(whole)
    nano = value * 10**9
    value = Fraction(-(-nano.numerator // nano.denominator), 10**9)
    if value == 0:
        return "0"
    for suffix, power in reversed(_DECIMAL.items()):
        scaled = value / Fraction(10) ** power
        if scaled.denominator == 1:
            if family == "exponent":
                return f"{scaled.numerator}e{power}" if power else str(scaled.numerator)
            return f"{scaled.numerator}{suffix}"
    raise QuantityError(RULE)
