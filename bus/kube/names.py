"""What names and labels may look like (Kubernetes "Object Names and IDs", "Labels and Selectors").

Each function returns "" for a good text, or what is wrong with it in the words of the real server.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_SUBDOMAIN_UNDERSCORE = re.compile(r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
_ENV_NAME = re.compile(r"[ -<>-~]+\Z")  # "relaxed" rule since 1.32: any printable ASCII but "="

_LABEL_SAYS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_SAYS = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and "
    "end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_SAYS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_SUBDOMAIN_UNDERSCORE_SAYS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
)
_NAME_PART_SAYS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_SAYS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} characters"


def dns_label(text: str) -> str:
    if len(text) > 63:
        return _too_long(63)
    if _LABEL.match(text):
        return ""
    return "must not contain dots" if _SUBDOMAIN.match(text) else _LABEL_SAYS


def dns_label_1035(text: str) -> str:
    if len(text) > 63:
        return _too_long(63)
    return "" if _LABEL_1035.match(text) else _LABEL_1035_SAYS


def dns_subdomain(text: str) -> str:
    if len(text) > 253:
        return _too_long(253)
    return "" if _SUBDOMAIN.match(text) else _SUBDOMAIN_SAYS


def dns_subdomain_underscore(text: str) -> str:
    """With the underscores that service records have."""
    if len(text) > 253:
        return _too_long(253)
    return "" if _SUBDOMAIN_UNDERSCORE.match(text) else _SUBDOMAIN_UNDERSCORE_SAYS


def problems(rule: Callable[[str], str], text: str) -> list[str]:
    """All that a rule has to say of a text, whose length and form can both be wrong."""
    first = rule(text)
    if not first:
        return []
    form, says = _FORMS.get(rule, (None, ""))
    if rule is label_key:
        return _key_problems(text)
    if form is not None and first.startswith("must be no more than") and not form.match(text):
        return [first, says]
    return [first]


def _key_problems(text: str) -> list[str]:
    parts = text.split("/")
    if len(parts) > 2:
        head = "a valid label key must consist of" + _NAME_PART_SAYS.removeprefix("name part must consist of")
        return [head + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    prefix, name, out = parts[0] if len(parts) == 2 else None, parts[-1], []
    if prefix == "":
        out.append("prefix part must be non-empty")
    elif prefix is not None:
        out += [f"prefix part {problem}" for problem in problems(dns_subdomain, prefix)]
    if not name:
        out.append("name part must be non-empty")
    elif len(name) > 63:
        out.append("name part " + _too_long(63))
    return out if _QUALIFIED.match(name) else [*out, _NAME_PART_SAYS]


def path_segment(text: str) -> str:
    """The loosest rule, for kinds without one of their own (RBAC names)."""
    if text in (".", ".."):
        return f"may not be '{text}'"
    for bad in "/%":
        if bad in text:
            return f"may not contain '{bad}'"
    return _too_long(253) if len(text) > 253 else ""


def label_key(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash and not prefix:
        return "prefix part must be non-empty"
    if prefix and dns_subdomain(prefix):
        return "prefix part " + dns_subdomain(prefix)
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part " + _too_long(63)
    return "" if _QUALIFIED.match(name) else _NAME_PART_SAYS


def label_key_problems(text: str) -> list[str]:
    """Everything that is wrong with a key: the real server finds two things wrong with an empty name."""
    problem = label_key(text)
    if not problem:
        return []
    return [problem, _NAME_PART_SAYS] if not text.rpartition("/")[2] else [problem]


def label_value(text: str) -> str:
    if len(text) > 63:
        return _too_long(63)
    return "" if _VALUE.match(text) else _VALUE_SAYS


def config_key(text: str) -> str:
    if len(text) > 253:
        return _too_long(253)
    if not _CONFIG_KEY.match(text):
        return (
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',"
            "  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    if text in (".", ".."):
        return f"must not be '{text}'"
    return "must not start with '..'" if text.startswith("..") else ""


def env_name(text: str) -> str:
    return (
        ""
        if _ENV_NAME.match(text)
        else "a valid environment variable name must consist only of printable ASCII characters other than '='"
    )


_FORMS: dict[Callable[[str], str], tuple[re.Pattern[str], str]] = {
    dns_label: (_LABEL, _LABEL_SAYS),
    dns_label_1035: (_LABEL_1035, _LABEL_1035_SAYS),
    dns_subdomain: (_SUBDOMAIN, _SUBDOMAIN_SAYS),
    label_value: (_VALUE, _VALUE_SAYS),
}
