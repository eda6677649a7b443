"""How a webhook is called, as those who decide see it: where it is, what it is sent, what comes back.

The one who really calls (``bus/kube/http/calling.py``) is handed in, so that nothing here does I/O.
"""

from __future__ import annotations

from typing import Any, Protocol

from bus.kube.errors import StatusError
from bus.kube.storage import Object

SCHEME = "k8s.io/apiserver/pkg/util/webhook/client.go:71"  # what the real server calls the list of what webhooks may say
_HEAD = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


class CallError(Exception):
    """A webhook that gave no usable answer; the message is what the real server would say."""


class Caller(Protocol):
    async def post(self, config: Object, body: Object, timeout_s: float | None) -> Any:
        """The JSON that a webhook answers ``body`` with.  ``config`` is its clientConfig.  ``timeout_s`` is told to it, too;
        without one a limit of the caller's own applies.  Raises CallError."""


def review_of(answer: Any, group: str, version: str, kind: str) -> Object:
    """The review in an answer; raises CallError for anything else."""
    if not isinstance(answer, dict):
        name = {str: "string", list: "array", bool: "bool", int: "number", float: "number"}.get(type(answer), "null")
        raise CallError(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal {name} into Go value of type {_HEAD}"
        )
    said_version, said_kind = answer.get("apiVersion") or f"{group}/{version}", answer.get("kind") or kind
    if (said_version, said_kind) == (f"{group}/{version}", kind):
        return answer
    if said_kind == kind and said_version in (f"{group}/v1", f"{group}/v1beta1"):
        other = said_version.rpartition("/")[2]
        raise CallError(f"converting ({other}.{kind}) to ({version}.{kind}): unknown conversion")
    raise CallError(f'no kind "{said_kind}" is registered for version "{said_version}" in scheme "{SCHEME}"')


def failure(message: str) -> StatusError:
    """500, with the message as its cause too."""
    return StatusError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})
