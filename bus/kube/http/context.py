"""One request: what it asks, of whom, and how it may be answered."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from bus.kube import errors, gotext
from bus.kube.auth.denials import Denials
from bus.kube.auth.requests import require
from bus.kube.auth.reviews import Reviews
from bus.kube.auth.users import Attributes, Authorizer, User
from bus.kube.catalog import Resource
from bus.kube.http import negotiation, paths
from bus.kube.registry import Registry
from bus.kube.storage import Origin
from bus.kube.targets import Target, Write

_EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
MANAGER_CHARS_MAX = 128
INT64_MAX = (1 << 63) - 1
_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}

Connect = Callable[[web.Request, Target, str], Awaitable[web.StreamResponse]]  # request, what, actor


@dataclass(frozen=True, slots=True)
class Virtual:
    """A kind that is stored nowhere, and who answers for it."""

    resource: Resource
    serve: Connect


@dataclass(slots=True)
class Limits:
    """What one server spends on its clients at most."""

    watches_max: int = 10_000  # a watch is some kB and a task; informers of a thousand nodes with ten kinds each
    request_s: float = 60.0  # everything but a watch, as kube-apiserver's --request-timeout
    watch_s_max: float = 3600.0
    watch_s_default: float = 1800.0  # kube-apiserver's --min-request-timeout
    write_s: float = 30.0  # a client that reads nothing for this long has gone
    requests_at_once: int = 64  # seats; what they wait for is the log, so more would only queue there
    requests_waiting: int = 200  # of one user, for a seat
    users_waiting: int = 1_000
    connections_max: int = 12_000  # beyond the watches, and below the 20,000 files of a usual machine


@dataclass(slots=True)
class Server:
    """What the handlers share."""

    registry: Registry
    limits: Limits = field(default_factory=Limits)
    connect: Mapping[str, Connect] = field(default_factory=dict)
    authorizer: Authorizer | None = None  # None: whoever was let in may do everything
    reviews: Reviews | None = None
    denials: Denials = field(default_factory=Denials)
    virtual: Mapping[tuple[str, str], Virtual] = field(default_factory=dict)
    watches: int = 0

    def require(self, wanted: Attributes) -> None:
        """Raises StatusError 403."""
        if self.authorizer is None:
            return
        try:
            require(self.authorizer, wanted)
        except errors.StatusError as e:
            self.denials.tell(wanted.user.actor, e.message)
            raise

    def all(self) -> list[Resource]:
        """Everything that is served, in the order of discovery."""
        return [*self.registry.catalog.all(), *(v.resource for v in self.virtual.values())]


@dataclass(slots=True)
class Context:
    request: web.Request
    server: Server
    address: paths.Address
    target: Target
    user: User
    output: negotiation.Output

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    def flag(self, name: str) -> bool:
        """A boolean of the query: everything but its absence, "false" and "0" is true, as in the real server."""
        return self.query.get(name, "false").lower() not in ("false", "0")

    def number(self, name: str, minimum: int = 0) -> int | None:
        """A whole number of the query, None when absent; raises StatusError 400."""
        text = self.query.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"[+-]?[0-9]{1,40}", text, re.ASCII):
            raise errors.bad_request(f"strconv.ParseInt: parsing {errors.show(text[:80])}: invalid syntax")
        if abs(int(text)) > INT64_MAX:
            raise errors.bad_request(f"strconv.ParseInt: parsing {errors.show(text)}: value out of range")
        return max(int(text), minimum)

    def revision(self, *, listed: bool = False) -> int | None:
        """``resourceVersion`` of the query; raises StatusError: a list's 400, or the 500 that the real server has for
        one object and for a watch."""
        text = self.query.get("resourceVersion", "")
        if text == "":
            return None
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
            said = f"strconv.ParseUint: parsing {errors.show(text[:80])}: invalid syntax"
            why = f"resourceVersion: Invalid value: {errors.show(text[:80])}: {said}"
            if not listed:
                raise errors.StatusError(500, "", why)
            raise errors.bad_request(f"invalid resource version: {why}")
        return int(text)

    def origin(self) -> Origin:
        """Raises StatusError 400 for a header that is no event id."""
        ids = []
        for header in ("Skerry-Cause", "Skerry-Trace"):
            value = self.request.headers.get(header)
            if value is not None and not _EVENT_ID.match(value):
                raise errors.bad_request(f"{header} is not the id of an event")
            ids.append(value)
        return Origin(self.user.actor, ids[0], ids[1])

    def write(self) -> Write:
        dry = self.query.getall("dryRun", []) if hasattr(self.query, "getall") else []
        causes = []
        if any(d != "All" for d in dry):
            causes.append(errors.not_supported("dryRun", dry, ("All",)))
        validation = self.query.get("fieldValidation", "") or "Warn"
        if validation not in ("Ignore", "Warn", "Strict"):
            causes.append(errors.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
        agent = self.request.headers.get("User-Agent", "").split("/", 1)[0]
        named = self.query.get("fieldManager", "")
        if len(named.encode()) > MANAGER_CHARS_MAX:
            said = f"Too long: may not be more than {MANAGER_CHARS_MAX} bytes"
            causes.append(errors.Cause("fieldManager", "FieldValueTooLong", said))
        for at, letter in enumerate(named):
            if not letter.isprintable():
                why = f"invalid character U+{ord(letter):04X} (at position {at})"
                causes.append(
                    errors.Cause("fieldManager", "FieldValueInvalid", f"Invalid value: {gotext.quoted(named)}: {why}")
                )
                break
        if causes:
            raise errors.invalid("meta.k8s.io", _OPTIONS.get(self.request.method, "CreateOptions"), "", causes)
        manager = named or "".join(c for c in agent if c.isprintable())[:MANAGER_CHARS_MAX] or "unknown"
        wanted = {"dryRun": list(dry), "fieldManager": named, "fieldValidation": self.query.get("fieldValidation", "")}
        options = {name: value for name, value in wanted.items() if value}
        return Write(self.origin(), any(dry), manager, self.flag("force"), validation, user=self.user, options=options)
