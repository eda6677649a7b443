"""One event of every type, as the code of version 1 wrote it.  The bytes beside this file are theirs, for ever.

A new version of the event adds samples and files of its own (`python -m tests.recorded.samples` writes those that are
missing, and never touches one that exists); nothing here is changed after it was released.
"""

from __future__ import annotations

from pathlib import Path

from schemas import codec, event, reports

HERE = Path(__file__).resolve().parent
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-1", "namespace": "default", "uid": "u-1", "labels": {"app": "web"}},
    "spec": {"nodeName": "edge-1", "containers": [{"name": "c", "image": "busybox:1.36", "ports": [{"containerPort": 80}]}]},
}
_T = 1_790_000_000_000_000


def _id(n: int) -> str:
    return event.uuid7(_T + n, bytes([n] * 10))


_HOPS = [reports.Hop(what="edge.applied", time=_T + 3), reports.Hop(what="container.started", time=_T + 4, about="c")]
_NODE = reports.NodeReport(
    status={"capacity": {"cpu": "2"}, "conditions": []},
    labels={"zone": "a"},
    ready=False,
    reason="ContainerRuntimeDown",
    boot="b",
)
_TWINS = [
    reports.TwinValue(property="temperature", value=21.5, time=_T),
    reports.TwinValue(property="mode", value="auto", desired="auto", time=_T, quality="bad", reason="timeout"),
    reports.TwinValue(property="raw", value=b"\x00\xff", time=_T),
    reports.TwinValue(property="on", value=None, time=_T),
]
_EVENT = reports.EventReport(
    involved={"kind": "Pod", "name": "web-1"},
    type="Warning",
    reason="BackOff",
    message="again",
    count=3,
    first=_T,
    last=_T + 9,
)


def _report(n: int, kind: str, data: reports.Model, namespace: str = "", name: str = "") -> event.Event:
    return event.Event(
        id=_id(n),
        type=event.REPORT,
        scope="edge-1",
        resource=kind,
        namespace=namespace,
        name=name,
        time=_T + n,
        mono=123_456,
        boot="7b1e",
        source="edge/daemon@0.1.0",
        actor="edge-1",
        cause=_id(2),
        trace=_id(1),
        data=data.model_dump(exclude_defaults=True),
    )


def _cluster(n: int, type_: str, data: dict[str, object] | None) -> event.Event:
    return event.Event(
        id=_id(n), type=type_, resource="pods", namespace="default", name="web-1", uid="u-1", time=_T + n,
        source="cloud/api@0.1.0", actor="admin", trace=_id(n), data=data,
    )  # fmt: skip


def _meta(n: int, type_: str, data: dict[str, object] | None) -> event.Event:
    return event.Event(
        id=_id(n), type=type_, scope="edge-1", resource="pods", namespace="default", name="web-1", uid="u-1", rev=7,
        time=_T + n, source="cloud/dispatcher@0.1.0", cause=_id(1), trace=_id(1), prev=0 if data else 12, data=data,
    )  # fmt: skip


def _plain(n: int, type_: str, resource: str, name: str) -> event.Event:
    return event.Event(
        id=_id(n), type=type_, resource=resource, name=name, time=_T + n, source="bus/hub@0.1.0", actor="edge-1",
        trace=_id(n), data={"ok": False, "reason": "the token has expired"},
    )  # fmt: skip


SAMPLES: dict[str, event.Event] = {
    "event-v1-object-applied": _cluster(1, event.OBJECT_APPLIED, _POD),
    "event-v1-object-deleted": _cluster(9, event.OBJECT_DELETED, None),
    "event-v1-object-deleted-last-state": _cluster(10, event.OBJECT_DELETED, _POD),
    "event-v1-meta-applied": _meta(2, event.OBJECT_APPLIED, _POD),
    "event-v1-meta-deleted": _meta(11, event.OBJECT_DELETED, None),
    "event-v1-report-node": _report(3, "node", _NODE),
    "event-v1-report-pod": _report(
        4, "pod", reports.PodReport(uid="u-1", status={"phase": "Running"}, hops=_HOPS), "default", "web-1"
    ),
    "event-v1-report-pod-gone": _report(5, "pod", reports.PodReport(uid="u-1", status=None), "default", "web-1"),
    "event-v1-report-twin": _report(
        6, "twin", reports.TwinReport(uid="d-1", state="online", twins=_TWINS, hops=_HOPS), "default", "pump"
    ),
    "event-v1-report-event": _report(7, "event", _EVENT, "default", "web-1.17a"),
    "event-v1-audit": _plain(12, "audit.join", "join", "edge-1"),
    "event-v1-identity-token": _plain(13, "identity.token", "tokens", "t1"),
    "event-v1-identity-node": _plain(14, "identity.node", "nodes", "edge-1"),
}

# What the data of a report is, so that its model must read it for ever too.
DATA: dict[str, type[reports.Model]] = {
    "event-v1-report-node": reports.NodeReport,
    "event-v1-report-pod": reports.PodReport,
    "event-v1-report-pod-gone": reports.PodReport,
    "event-v1-report-twin": reports.TwinReport,
    "event-v1-report-event": reports.EventReport,
}


def path(name: str) -> Path:
    return HERE / f"{name}.msgpack"


if __name__ == "__main__":
    for sample, ev in SAMPLES.items():
        if not path(sample).exists():
            path(sample).write_bytes(codec.encode_event(ev))
            print(f"wrote {path(sample).name}")
