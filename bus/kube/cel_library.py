"""The functions that Kubernetes adds to CEL: URLs, addresses, quantities, versions, patterns, lists.

Source: Kubernetes "Common Expression Language", "CEL libraries".  What has no type of CEL's own (a URL, a quantity) is a map
with a key that no JSON has.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from bus.kube import quantity

if TYPE_CHECKING:
    from cel import Context

TEXT_CHARS_MAX = 1 << 16  # of a text that a pattern is tried on: backtracking is not linear
_KIND, _TEXT = "\x00kind", "\x00text"
Function = Callable[..., Any]
_FUNCTIONS: dict[str, Function] = {}


def _function(name: str) -> Callable[[Function], Function]:
    """Offers a function under the name that expressions call it by."""

    def offer(function: Function) -> Function:
        _FUNCTIONS[name] = function
        return function

    return offer


def context(variables: Mapping[str, Any]) -> Context:
    """Where an expression finds its variables and every function there is."""
    from cel import Context, stdlib  # only who has expressions pays for it

    made = Context(variables=dict(variables))
    stdlib.add_stdlib_to_context(made)
    for name, function in _FUNCTIONS.items():
        made.add_function(name, function)
    return made


def _made(kind: str, text: str) -> dict[str, str]:
    return {_KIND: kind, _TEXT: text}


def _text(value: Any, kind: str) -> str:
    if not isinstance(value, dict) or value.get(_KIND) != kind:
        raise TypeError("no such overload")
    return str(value[_TEXT])


def _good(read: Callable[[Any], Any], *args: Any) -> bool:
    try:
        read(*args)
    except (ValueError, TypeError):
        return False
    return True


# --- URLs


@_function("url")
def _url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not (parts.scheme or text.startswith("/")) or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    return _made("url", text)


@_function("isURL")
def _is_url(text: str) -> bool:
    return _good(_url, text)


@_function("getScheme")
def _get_scheme(url: Any) -> str:
    return urlsplit(_text(url, "url")).scheme


@_function("getHost")
def _get_host(url: Any) -> str:
    return urlsplit(_text(url, "url")).netloc.rpartition("@")[2]


@_function("getHostname")
def _get_hostname(url: Any) -> str:
    host = str(_get_host(url))
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


@_function("getPort")
def _get_port(url: Any) -> str:
    return str(_get_host(url)).rpartition("]")[2].partition(":")[2]


@_function("getEscapedPath")
def _get_escaped_path(url: Any) -> str:
    return urlsplit(_text(url, "url")).path


@_function("getQuery")
def _get_query(url: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(_text(url, "url")).query, keep_blank_values=True)


# --- addresses and networks


def _address(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(str(text))
    if "%" in str(text):
        raise ValueError(f"IP Address {text!r} with zone value is not allowed")
    return found


@_function("ip")
def _ip(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return _made("ip", _text(value, "cidr").partition("/")[0])
    return _made("ip", str(_address(value)))


@_function("isIP")
def _is_ip(text: Any) -> bool:
    return _good(_address, text)


@_function("family")
def _family(value: Any) -> int:
    return _address(_text(value, "ip")).version


def _of_address(name: str) -> Callable[[Any], bool]:
    return lambda value: bool(getattr(_address(_text(value, "ip")), name))


_FUNCTIONS |= {"isUnspecified": _of_address("is_unspecified"), "isLoopback": _of_address("is_loopback")}


@_function("isLinkLocalUnicast")
def _is_link_local_unicast(value: Any) -> bool:
    return _address(_text(value, "ip")).is_link_local


@_function("isLinkLocalMulticast")
def _is_link_local_multicast(value: Any) -> bool:
    found = _address(_text(value, "ip"))
    return found in ipaddress.ip_network("224.0.0.0/24" if found.version == 4 else "ff02::/16")


@_function("isGlobalUnicast")
def _is_global_unicast(value: Any) -> bool:
    found = _address(_text(value, "ip"))
    odd = found.is_unspecified or found.is_loopback or found.is_multicast or found.is_link_local
    return not odd and str(found) != "255.255.255.255"


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if "/" not in str(text) or "%" in str(text):
        raise ValueError(f"network address parse error during conversion from string: {text!r}")
    return ipaddress.ip_network(str(text), strict=False)


@_function("cidr")
def _cidr(text: Any) -> dict[str, str]:
    _network(text)
    return _made("cidr", str(text))


@_function("isCIDR")
def _is_cidr(text: Any) -> bool:
    return _good(_network, text)


@_function("containsIP")
def _contains_ip(value: Any, other: Any) -> bool:
    text = other if isinstance(other, str) else _text(other, "ip")
    return _address(text) in _network(_text(value, "cidr"))


@_function("containsCIDR")
def _contains_cidr(value: Any, other: Any) -> bool:
    whole, part = _network(_text(value, "cidr")), _network(other if isinstance(other, str) else _text(other, "cidr"))
    same = whole.version == part.version
    return same and whole.network_address <= part.network_address and part.broadcast_address <= whole.broadcast_address  # type: ignore[operator]


@_function("prefixLength")
def _prefix_length(value: Any) -> int:
    return _network(_text(value, "cidr")).prefixlen


@_function("masked")
def _masked(value: Any) -> dict[str, str]:
    return _made("cidr", str(_network(_text(value, "cidr"))))


# --- quantities and versions


def _amount(value: Any) -> Fraction:
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    return quantity.parse(_text(value, "quantity"))


@_function("quantity")
def _quantity(text: str) -> dict[str, str]:
    return _made("quantity", quantity.canonical(text))


@_function("isQuantity")
def _is_quantity(text: Any) -> bool:
    return isinstance(text, str) and _good(quantity.canonical, text)


@_function("sign")
def _sign(value: Any) -> int:
    amount = _amount(value)
    return (amount > 0) - (amount < 0)


@_function("isInteger")
def _is_integer(value: Any) -> bool:
    amount = _amount(value)
    return amount.denominator == 1 and -(1 << 63) <= amount < 1 << 63


@_function("asInteger")
def _as_integer(value: Any) -> int:
    if not _is_integer(value):
        raise ValueError("cannot convert value to integer")
    return int(_amount(value))


@_function("asApproximateFloat")
def _as_approximate_float(value: Any) -> float:
    return float(_amount(value))


@_function("add")
def _add(one: Any, other: Any) -> dict[str, str]:
    return _made("quantity", quantity.render(_amount(one) + _amount(other), "decimal"))


@_function("sub")
def _sub(one: Any, other: Any) -> dict[str, str]:
    return _made("quantity", quantity.render(_amount(one) - _amount(other), "decimal"))


_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?\Z"
)


def _release(text: Any) -> tuple[Any, ...]:
    """A version in its order (Semantic Versioning 2.0.0, clause 11)."""
    m = _VERSION.match(str(text))
    if m is None:
        raise ValueError("No Major.Minor.Patch elements found")
    parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in (m[4] or "").split(".") if p)
    return (int(m[1]), int(m[2]), int(m[3]), not parts, parts)


@_function("semver")
def _semver(text: str, loose: bool = False) -> dict[str, str]:
    if loose:
        bare = text.strip().removeprefix("v")
        head, mark, rest = bare.partition("-")
        numbers = [str(int(n)) for n in head.split(".")]
        text = ".".join([*numbers, "0", "0"][:3]) + mark + rest
    _release(text)
    return _made("semver", text)


@_function("isSemver")
def _is_semver(text: Any, loose: bool = False) -> bool:
    return isinstance(text, str) and _good(_semver, text, loose)


@_function("major")
def _major(value: Any) -> int:
    return int(_release(_text(value, "semver"))[0])


@_function("minor")
def _minor(value: Any) -> int:
    return int(_release(_text(value, "semver"))[1])


@_function("patch")
def _patch(value: Any) -> int:
    return int(_release(_text(value, "semver"))[2])


def _order(one: Any, other: Any) -> int:
    first: Any
    second: Any
    if isinstance(one, dict) and one.get(_KIND) == "semver":
        first, second = _release(_text(one, "semver")), _release(_text(other, "semver"))
    else:
        first, second = _amount(one), _amount(other)
    return int(first > second) - int(first < second)


@_function("compareTo")
def _compare_to(one: Any, other: Any) -> int:
    return _order(one, other)


@_function("isGreaterThan")
def _is_greater_than(one: Any, other: Any) -> bool:
    return _order(one, other) > 0


@_function("isLessThan")
def _is_less_than(one: Any, other: Any) -> bool:
    return _order(one, other) < 0


# --- patterns and lists


@_function("find")
def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text[:TEXT_CHARS_MAX])
    return found[0] if found else ""


@_function("findAll")
def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [m[0] for m in re.finditer(pattern, text[:TEXT_CHARS_MAX])]
    return found if limit < 0 else found[:limit]


@_function("isSorted")
def _is_sorted(items: list[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(items))


@_function("indexOf")
def _index_of(items: Any, item: Any, start: int = 0) -> int:
    if isinstance(items, str):
        return int(items.find(item, start))
    return next((i for i, one in enumerate(items) if one == item and type(one) is type(item)), -1)


@_function("lastIndexOf")
def _last_index_of(items: Any, item: Any, last: int | None = None) -> int:
    if isinstance(items, str):
        return int(items.rfind(item) if last is None else items.rfind(item, 0, last + len(item)))
    return next((i for i in range(len(items) - 1, -1, -1) if items[i] == item and type(items[i]) is type(item)), -1)


_VERB = re.compile(r"%(?:\.([0-9]+))?([sdfebxXo%])")


@_function("format")
def _format(text: str, args: list[Any]) -> str:
    rest = list(args)

    def one(m: re.Match[str]) -> str:
        verb, digits = m[2], int(m[1] or 6)
        if verb == "%":
            return "%"
        if not rest:
            raise ValueError(f"index {len(args)} out of range")
        value = rest.pop(0)
        if verb in "fe":
            return f"{float(value):.{min(digits, 100)}{verb}}"
        if verb in "bo":
            return f"{int(value):{verb}}"
        if verb in "xX":
            return f"{value:{verb}}" if isinstance(value, int) else str(value).encode().hex()
        return _plain(value)

    return _VERB.sub(one, text)


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(_plain(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_plain(k)}: {_plain(v)}" for k, v in sorted(value.items())) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
