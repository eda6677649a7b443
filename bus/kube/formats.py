"""The formats of strings that custom resources' schemas can ask for (go-openapi's strfmt, and Kubernetes' own two)."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit

Check = Callable[[str], bool]


def known(node: dict[str, Any]) -> str:
    """The format that counts for a schema's type, "" for others: they are kept, and nobody checks them."""
    form = node.get("format") or ""
    kind = node.get("type") or ("integer,string" if node.get("x-kubernetes-int-or-string") else "")
    if not isinstance(form, str):
        return ""
    if kind in ("", "string"):
        return form if form.replace("-", "") in _BY_NAME else ""
    return form if form in {"integer": ("int32", "int64"), "number": ("float", "double")}.get(kind, ()) else ""


def _pattern(text: str) -> Check:
    compiled = re.compile(text)
    return lambda value: compiled.search(value) is not None


def _address(kind: int, mark: str) -> Check:
    def good(text: str) -> bool:
        try:
            found = ipaddress.ip_address(_plain(text))
            return "%" not in text and (found.version == kind or (kind == 4 and mark in text))
        except ValueError:
            return False

    return good


def _plain(text: str) -> str:
    """Without the leading zeros that Kubernetes' older parser of IPv4 addresses allows."""
    return re.sub(r"(?<![0-9a-fA-F:.])0+(?=[0-9])|(?<=\.)0+(?=[0-9])", "", text) if ":" not in text else text


def _cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(_plain(text), strict=False)
    except ValueError:
        return False
    return "/" in text


def _date(text: str) -> bool:
    try:
        return len(text) == 10 and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))\Z")


def _date_time(text: str) -> bool:
    parts = text.lower().split("t")
    if len(parts) < 2 or not _date(parts[0]):
        return False
    clock = _CLOCK.match(parts[1])
    return clock is not None and clock[1] <= "23" and clock[2] <= "59" and clock[3] <= "59"


_UNITS = r"(ns|us|µs|μs|ms|s|m|h)"
_GO_DURATION = re.compile(rf"[+-]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+){_UNITS})+)\Z")
_WORDS = r"(ns|nano|us|µs|micro|ms|milli|s|sec|m|min|h|hr|hour|d|day|w|week|wk)"
_SPOKEN = re.compile(rf"(\s*[0-9]+\s*{_WORDS}[a-z]*\s*)+\Z")


def _duration(text: str) -> bool:
    return bool(_GO_DURATION.match(text) or _SPOKEN.match(text))


def _email(text: str) -> bool:
    name, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    return bool(at and local and domain) and " " not in address and (bool(name) or address == text.strip().strip("<>"))


def _uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme or text.startswith("/")) and not re.search(r"[\x00-\x20\x7f]", text)


_HOST_LETTER = r"[^\W_]"
_HOSTNAME = re.compile(
    rf"({_HOST_LETTER}((-?{_HOST_LETTER}{{0,62}})?)|({_HOST_LETTER}(([\w-]{{0,61}}{_HOST_LETTER})?)\.)+[^\W\d_]{{2,63}})\Z"
)


def _hostname(text: str) -> bool:
    return bool(_HOSTNAME.match(text)) and len(text) <= 255 and all(len(part) <= 63 for part in text.split("."))


def _checked(text: str, length: int) -> str:
    """An ISBN's digits, "" if they are not so many."""
    digits = re.sub(r"[\s-]", "", text)
    return digits if re.fullmatch(rf"[0-9]{{{length - 1}}}[0-9X]", digits) else ""


def _isbn10(text: str) -> bool:
    digits = _checked(text, 10)
    return bool(digits) and sum((10 - i) * (10 if d == "X" else int(d)) for i, d in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = _checked(text, 13)
    return digits.isdigit() and sum((3 if i % 2 else 1) * int(d) for i, d in enumerate(digits)) % 10 == 0


def _card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not _CARD.match(digits):
        return False
    doubled = [int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


_CARD = re.compile(
    r"(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})\Z"
)
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NUMBER = r"([0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_HEX = "[0-9a-f]"
_OCTET = "[0-9a-fA-F]{2}"


def _uuid(version: str = "", variant: str = "") -> Check:
    third = f"{version}{_HEX}{{3}}" if version else f"{_HEX}{{4}}"
    fourth = f"{variant}{_HEX}{{3}}" if variant else f"{_HEX}{{4}}"
    return _pattern(rf"(?i)\A{_HEX}{{8}}-?{_HEX}{{4}}-?{third}-?{fourth}-?{_HEX}{{12}}\Z")


_BY_NAME: dict[str, Check] = {
    "bsonobjectid": _pattern(r"\A[0-9a-fA-F]{24}\Z"),
    "uri": _uri,
    "email": _email,
    "hostname": _hostname,
    "ipv4": _address(4, "."),
    "ipv6": _address(6, ":"),
    "cidr": _cidr,
    "mac": _pattern(
        rf"\A{_OCTET}([:-]{_OCTET}){{5}}([:-]{_OCTET}){{0,14}}\Z|\A{_OCTET}{_OCTET}(\.{_OCTET}{_OCTET}){{2,9}}\Z"
    ),
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab]"),
    "uuid5": _uuid("5", "[89ab]"),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _card,
    "ssn": _pattern(r"\A[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}\Z"),
    "hexcolor": _pattern(r"\A#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})\Z"),
    "rgbcolor": _pattern(rf"\Argb\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\Z"),
    "byte": _pattern(r"\A(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})\Z"),
    "password": lambda text: True,
    "date": _date,
    "duration": _duration,
    "datetime": _date_time,
    "k8sshortname": lambda text: len(text) <= 63 and re.fullmatch(_LABEL, text) is not None,
    "k8slongname": lambda text: len(text) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", text) is not None,
}


def check(form: str) -> Check | None:
    """What a string of the format must pass; None for a format that is no string's."""
    return _BY_NAME.get(form.replace("-", ""))
