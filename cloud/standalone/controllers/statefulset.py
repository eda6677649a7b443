"""StatefulSet: pods with a number that is theirs for ever, made in order, ended in the opposite order, never two of one.

A pod behind a cut link still has its number: nothing takes its place, and in order nothing goes on before it is back.
Source: Kubernetes documentation, "StatefulSets" (ordinals, pod management policies, update strategies, partitions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloud.core.writes import Write
from cloud.standalone.controllers import amounts, base, claims, history, retention
from cloud.standalone.controllers.base import CLAIMS, PODS, REVISIONS, STATEFULSETS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

POD_NAME, POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
BURST_PODS = 500  # with podManagementPolicy Parallel: made or deleted in one go
RETRY_US = 10 * times.US_PER_S  # a pod that failed is replaced when it is this old: one that fails at once must not spin


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    for s in (seen, old):
        if s is None or ((s.key.group, s.key.resource) == PODS and claims.unmoved(seen, old)):
            continue
        if (s.key.group, s.key.resource) == STATEFULSETS:
            yield s.key
        else:
            yield from claims.concerned(view, s, STATEFULSETS, "StatefulSet", adopts=seen is not None)


@dataclass(frozen=True, slots=True)
class _Set:
    seen: Seen
    past: history.History
    pods: Mapping[int, Seen]  # by number
    now_us: int

    @property
    def spec(self) -> Object:
        found: Object = self.seen.object["spec"]
        return found

    @property
    def numbers(self) -> range:
        first = int(at(self.spec, "ordinals", "start") or 0)
        wanted = self.spec.get("replicas")
        return range(first, first + (1 if wanted is None else int(wanted)))

    @property
    def ordered(self) -> bool:
        return self.spec.get("podManagementPolicy") != "Parallel"

    @property
    def update(self) -> str:
        return f"{self.seen.key.name}-{self.past.current}"

    @property
    def current(self) -> str:
        return str(at(self.seen.object, "status", "currentRevision") or self.update)

    @property
    def partition(self) -> int:
        """The first number that gets the new template."""
        return self.numbers.start + int(at(self.spec, "updateStrategy", "rollingUpdate", "partition") or 0)

    def fine(self, pod: Seen) -> bool:
        wait_s = int(self.spec.get("minReadySeconds") or 0)
        return not base.deleting(pod.object) and amounts.available_in_us(pod.object, wait_s, self.now_us) == 0


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    seen = view.get(key)
    if seen is None:
        return Plan()
    writes: list[Write] = []
    pods = claims.claim(view, seen, PODS, writes, lambda p: _number(key.name, str(base.meta(p).get("name"))) is not None)
    past = history.of(view, seen)
    if writes or past.writes:
        return Plan([*writes, *past.writes])  # looked at again with what the API says then
    numbered = {n: p for p in pods if (n := _number(key.name, p.key.name)) is not None}
    sts = _Set(seen, past, numbered, now_us)
    again: list[int] = []
    if not base.deleting(seen.object):
        writes = retention.writes(view, seen, numbered, sts.numbers) or _manage(view, sts, again)
        if not writes:
            used = [_revision(p.object).removeprefix(f"{key.name}-") for p in pods]
            used.append(sts.current.removeprefix(f"{key.name}-"))
            writes = history.forget(seen, past, used)
    status = _status(sts, again)
    if status != (seen.object.get("status") or {}):
        writes.append(base.status(seen, {**seen.object, "status": status}))
    return Plan(writes[: BURST_PODS + 1], min(again, default=None))


CONTROLLER = Controller("statefulset", (STATEFULSETS, REVISIONS, PODS), concerns, reconcile)


def _number(name: str, pod: str) -> int | None:
    tail = pod.removeprefix(f"{name}-")
    return int(tail) if tail != pod and tail.isdecimal() and str(int(tail)) == tail else None


def _revision(pod: Object) -> str:
    return base.labels(pod).get(history.HASH, "")


# --- what is next ----------------------------------------------------------------------------------------------------


def _manage(view: View, sts: _Set, again: list[int]) -> list[Write]:
    writes: list[Write] = []
    for n in sts.numbers:
        pod = sts.pods.get(n)
        if pod is None:
            writes += _create(view, sts, n)
        elif base.finished(pod.object) and not base.deleting(pod.object):
            made = times.micros(base.meta(pod.object).get("creationTimestamp")) or 0
            rest = made + RETRY_US - sts.now_us
            if rest > 0:
                again.append(rest)
            else:
                writes.append(base.delete(pod, sts.seen))
        elif sts.fine(pod):
            continue
        if sts.ordered:
            return writes
    for n in sorted((n for n in sts.pods if n not in sts.numbers), reverse=True):
        if not base.deleting(sts.pods[n].object):
            writes.append(base.delete(sts.pods[n], sts.seen))
        if sts.ordered:
            return writes
    return writes or _roll(sts)


def _roll(sts: _Set) -> list[Write]:
    """From the highest number down, one at a time, each only when all above it are fine."""
    if at(sts.spec, "updateStrategy", "type") == "OnDelete":
        return []
    for n in reversed(sts.numbers):
        pod = sts.pods.get(n)
        if n < sts.partition or pod is None or base.deleting(pod.object):
            return []
        if _revision(pod.object) != sts.update:
            return [base.delete(pod, sts.seen)]
        if not sts.fine(pod):
            return []
    return []


def _create(view: View, sts: _Set, n: int) -> list[Write]:
    name = f"{sts.seen.key.name}-{n}"
    writes = []
    for c in base.maps(sts.spec.get("volumeClaimTemplates")):
        claim = _claim(sts, c, name)
        if view.get(ObjectKey(*CLAIMS, sts.seen.key.namespace, claim["metadata"]["name"])) is None:
            writes.append(base.create(CLAIMS, sts.seen.key.namespace, claim, sts.seen))
    return [*writes, base.create(PODS, sts.seen.key.namespace, _pod(sts, n, name), sts.seen)]


def _claim(sts: _Set, template: Object, pod: str) -> Object:
    """Nothing owns it at first: ``retention`` says who does."""
    labels = {**base.labels(template), **(at(sts.spec, "selector", "matchLabels") or {})}
    meta = {"name": retention.claim_name(template, pod), "labels": labels}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": template.get("spec") or {}}


def _pod(sts: _Set, n: int, name: str) -> Object:
    template, revision = at(sts.spec, "template") or {}, sts.update
    rolling = at(sts.spec, "updateStrategy", "type") != "OnDelete"
    if rolling and n < sts.partition and sts.current != sts.update:
        before = next((r for r in sts.past.revisions if r.key.name == sts.current), None)
        if before is not None:
            template, revision = history.template_of(before), sts.current
    pod = claims.new_pod(sts.seen.object, template, **{history.HASH: revision, POD_NAME: name, POD_INDEX: str(n)})
    del pod["metadata"]["generateName"]
    pod["metadata"]["name"] = name
    spec = {**pod["spec"], "hostname": name}
    if sts.spec.get("serviceName"):
        spec["subdomain"] = sts.spec["serviceName"]
    names = [str(base.meta(c).get("name")) for c in base.maps(sts.spec.get("volumeClaimTemplates"))]
    if names:
        own = [v for v in base.maps(spec.get("volumes")) if v.get("name") not in names]
        spec["volumes"] = own + [{"name": c, "persistentVolumeClaim": {"claimName": f"{c}-{name}"}} for c in names]
    return {**pod, "spec": spec}


# --- status ----------------------------------------------------------------------------------------------------------


def _status(sts: _Set, again: list[int]) -> Object:
    there = [p for n, p in sorted(sts.pods.items()) if not base.finished(p.object)]
    wait_s = int(sts.spec.get("minReadySeconds") or 0)
    waits = [amounts.available_in_us(p.object, wait_s, sts.now_us) for p in there]
    again += [w for w in waits if w]
    live = [p for p in there if not base.deleting(p.object)]
    ready = sum(w is not None for w in waits)
    updated = sum(_revision(p.object) == sts.update for p in live)
    rolling = at(sts.spec, "updateStrategy", "type") != "OnDelete"
    arrived = rolling and updated == len(there) == len(sts.numbers) == ready
    current = sts.update if arrived else sts.current
    counts = {
        "observedGeneration": int(base.meta(sts.seen.object).get("generation") or 0),
        "replicas": len(there),
        "readyReplicas": ready,
        "availableReplicas": sum(w == 0 for w in waits),
        "currentReplicas": sum(_revision(p.object) == current for p in live),
        "updatedReplicas": updated,
        "collisionCount": int(at(sts.seen.object, "status", "collisionCount") or 0),
    }
    kept = ("replicas", "availableReplicas", "collisionCount")  # written even when nought (API reference)
    status: Object = {k: v for k, v in counts.items() if v or k in kept}
    return status | {"currentRevision": current, "updateRevision": sts.update}
