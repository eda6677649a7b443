"""What names and labels may look like (Kubernetes "Object Names and IDs", "Labels and Selectors").

Each function returns "" for a good text, or what is wrong with it in the words of the real server.
"""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
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
    return "" if _LABEL.match(text) else _LABEL_SAYS


def dns_label_1035(text: str) -> str:
    if len(text) > 63:
        return _too_long(63)
    return "" if _LABEL_1035.match(text) else _LABEL_1035_SAYS


def dns_subdomain(text: str) -> str:
    if len(text) > 253:
        return _too_long(253)
    return "" if _SUBDOMAIN.match(text) else _SUBDOMAIN_SAYS


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
    return f"must not be '{text}'" if text in (".", "..") else ""


def env_name(text: str) -> str:
    return (
        ""
        if _ENV_NAME.match(text)
        else "a valid environment variable name must consist only of printable ASCII characters other than '='"
    )
