"""Options in a query, as the API server reads them.  Pure.

Source: apimachinery's conversion of url.Values; validation.ValidatePodLogOptions for limits and words.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from bus.kube import errors
from schemas import tunnel

Query = Mapping[str, str]
NUMBER_MAX = 1 << 53


def flag(query: Query, name: str, default: bool = False) -> bool:
    if name not in query:
        return default
    return query[name].lower() not in ("false", "0")


def number(query: Query, name: str) -> int | None:
    """Raises StatusError 400."""
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,18}", text) or abs(int(text)) > NUMBER_MAX:
        raise errors.bad_request(f"{name}: {text[:40]!r} is not a whole number")
    return int(text)


def time_us(query: Query, name: str) -> int | None:
    """Wall microseconds of an RFC 3339 time.  Raises StatusError 400."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        when = datetime.datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text[:64]))
    except ValueError as e:
        raise errors.bad_request(f"{name}: {text[:40]!r} is not a time of RFC 3339") from e
    if when.tzinfo is None:
        raise errors.bad_request(f"{name}: {text[:40]!r} has no time zone")
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return max(0, (when - epoch) // datetime.timedelta(microseconds=1))


def logs(query: Query, pod: str, container: str) -> tunnel.Logs:
    """PodLogOptions.  Raises StatusError 400, 422."""
    tail, limit = number(query, "tailLines"), number(query, "limitBytes")
    since_s, since_us = number(query, "sinceSeconds"), time_us(query, "sinceTime")
    causes = []
    if tail is not None and tail < 0:
        causes.append(errors.bad_value("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        causes.append(errors.bad_value("limitBytes", limit, "must be greater than 0"))
    if since_s is not None and since_us is not None:
        causes.append(errors.not_permitted("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since_s is not None and since_s < 1:
        causes.append(errors.bad_value("sinceSeconds", since_s, "must be greater than 0"))
    stream = query.get("stream") or "All"
    if stream not in ("All", "Stdout", "Stderr"):
        causes.append(errors.not_supported("stream", stream, ("All", "Stderr", "Stdout")))
    if causes:
        raise errors.invalid("", "PodLogOptions", pod, causes)
    return tunnel.Logs(
        kind="logs",
        container=container,
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        timestamps=flag(query, "timestamps"),
        tail=tail,
        since_us=since_us or 0,
        since_s=since_s or 0,
        bytes_max=limit,
        streams="stdout" if stream == "Stdout" else "stderr" if stream == "Stderr" else "all",
    )
