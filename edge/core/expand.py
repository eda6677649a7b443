"""``$(NAME)`` in commands, arguments and values, as Kubernetes expands it.

``$(NAME)`` becomes the value when it is known and stays as written when it isn't; ``$$`` becomes ``$``.
Source: Kubernetes, "Define Dependent Environment Variables" (k8s.io/kubernetes third_party/forked/golang/expansion).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")


def expand(text: str, known: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return known.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replace, text)
