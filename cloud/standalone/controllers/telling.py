"""What a controller tells of a write that succeeded, as Events about the object that it looked at (``kubectl describe``).

Derived from the write, not planned with it: a plan says what to do, and whether it was done is known only afterwards.
What is told without a write of its own (a pod that fits nowhere, an autoscaler without figures) is in those controllers.
Source: kube-controller-manager 1.36 for reasons, types, words and components: pkg/controller/deployment/sync.go,
controller_utils.go, statefulset/stateful_pod_control.go, daemon, job, cronjob, disruption.
Not told: a cron job's missing or unexpected jobs and one that has to wait, which no write of ours shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cloud.core.writes import Write
from cloud.standalone.controllers import base, retention, selecting
from cloud.standalone.controllers.base import CLAIMS, JOBS, PODS, REPLICASETS, Kind, Object, Seen, View, at
from cloud.standalone.controllers.job import ended
from schemas.subjects import ObjectKey

Type = Literal["Normal", "Warning"]

COMPONENTS = {
    "deployment": "deployment-controller",
    "replicaset": "replicaset-controller",
    "replicationcontroller": "replication-controller",
    "daemonset": "daemonset-controller",
    "statefulset": "statefulset-controller",
    "job": "job-controller",
    "cronjob": "cronjob-controller",
    "disruption": "controllermanager",
}


@dataclass(frozen=True, slots=True)
class Said:
    """One Event to be: about what, and in which words."""

    about: Seen
    reason: str
    message: str
    component: str
    type: Type = "Normal"


@dataclass(frozen=True, slots=True)
class Done:
    """A write that succeeded.  ``before``: what it was made of, None for what is new; ``after``: what the API answered."""

    write: Write
    before: Object | None
    after: Object

    @property
    def kind(self) -> Kind:
        return self.write.key.group, self.write.key.resource

    @property
    def name(self) -> str:
        return self.write.key.name or str(base.meta(self.after).get("name") or "")


_Words = tuple[Type, str, str]  # type, reason, message


def of(view: View, controller: str, about: Seen, done: Done) -> list[Said]:
    """``about``: the object of the turn in which ``controller`` did it."""
    words = _OF.get(controller)
    if words is None:
        return []
    return [Said(about, reason, text, COMPONENTS[controller], kind) for kind, reason, text in words(view, about, done)]


def refused(controller: str, about: Seen, write: Write, why: str) -> Said:
    """An object that the API didn't let in."""
    component = COMPONENTS.get(controller, f"{controller}-controller")
    kind, name = (write.key.group, write.key.resource), write.key.name
    if controller == "deployment" and kind == REPLICASETS:
        text = f'Failed to create new replica set "{name}": {why}'
        return Said(about, "ReplicaSetCreateError", text, component, "Warning")
    text = f"Error creating: {why}"
    if controller == "cronjob":
        text = f"Error creating job: {why}"
    elif controller == "statefulset" and kind == PODS:
        text = f"Create Pod {name} in StatefulSet {about.key.name} failed error: {why}"
    return Said(about, "FailedCreate", text, component, "Warning")


# --- what each controller tells --------------------------------------------------------------------------------------


def _deployment(view: View, about: Seen, done: Done) -> list[_Words]:
    if done.kind != REPLICASETS or done.write.verb not in ("create", "update"):
        return []
    before, now = (0 if done.before is None else _replicas(done.before)), _replicas(done.after)
    if before == now:
        return []
    way = "up" if before < now else "down"
    return [("Normal", "ScalingReplicaSet", f"Scaled {way} replica set {done.name} from {before} to {now}")]


def _replicas(rs: Object) -> int:
    found = at(rs, "spec", "replicas")
    return 1 if found is None else int(found)


def _pods(view: View, about: Seen, done: Done) -> list[_Words]:
    if done.kind == PODS and done.write.verb == "create":
        return [("Normal", "SuccessfulCreate", f"Created pod: {done.name}")]
    if done.kind == PODS and done.write.verb == "delete":
        return [("Normal", "SuccessfulDelete", f"Deleted pod: {done.name}")]
    return []


def _daemonset(view: View, about: Seen, done: Done) -> list[_Words]:
    ended_pod = done.before if done.kind == PODS and done.write.verb == "delete" else None
    phase = at(ended_pod, "status", "phase")
    where = f"daemon pod {done.write.key.namespace}/{done.name} on node {at(ended_pod, 'spec', 'nodeName')}"
    found: list[_Words] = []
    if phase == "Failed":
        found.append(("Warning", "FailedDaemonPod", f"Found failed {where}, will try to kill it"))
    elif phase == "Succeeded":
        found.append(("Normal", "SucceededDaemonPod", f"Found succeeded {where}, will try to delete it"))
    return [*found, *_pods(view, about, done)]


def _statefulset(view: View, about: Seen, done: Done) -> list[_Words]:
    verb = {"create": "Create", "delete": "Delete"}.get(done.write.verb)
    whole = f"in StatefulSet {about.key.name}"
    if verb is not None and done.kind == PODS:
        return [("Normal", f"Successful{verb}", f"{verb} Pod {done.name} {whole} successful")]
    if verb == "Create" and done.kind == CLAIMS:
        pod = _pod_of_claim(about.object, done.name)
        return [("Normal", "SuccessfulCreate", f"Create Claim {done.name} Pod {pod} {whole} success")]
    return []


def _pod_of_claim(sts: Object, claim: str) -> str:
    for template in base.maps(at(sts, "spec", "volumeClaimTemplates")):
        prefix = retention.claim_name(template, "")
        pod = claim.removeprefix(prefix)
        if pod != claim and pod.rpartition("-")[0] == base.meta(sts).get("name"):
            return pod
    return ""


def _job(view: View, about: Seen, done: Done) -> list[_Words]:
    if done.kind != JOBS:
        return _pods(view, about, done)
    if done.write.verb != "status" or done.before is None:
        return []
    found: list[_Words] = []
    was, suspended = base.condition(done.before, "Suspended") or {}, base.condition(done.after, "Suspended") or {}
    if was.get("status") != suspended.get("status"):
        word = "Suspended" if suspended.get("status") == "True" else "Resumed"
        found.append(("Normal", word, f"Job {word.lower()}"))
    last = "" if ended(done.before) else ended(done.after)
    if last == "Complete":
        wanted = at(done.after, "spec", "completions")
        if wanted is not None and int(at(done.after, "status", "succeeded") or 0) > int(wanted):
            text = "Too many succeeded pods running after completion count reached"
            found.append(("Warning", "TooManySucceededPods", text))
        found.append(("Normal", "Completed", "Job completed"))
    elif last == "Failed":
        why = base.condition(done.after, "Failed") or {}
        found.append(("Warning", str(why.get("reason") or "Failed"), str(why.get("message") or "")))
    return found


def _cronjob(view: View, about: Seen, done: Done) -> list[_Words]:
    if done.kind == JOBS and done.write.verb == "create":
        return [("Normal", "SuccessfulCreate", f"Created job {done.name}")]
    if done.kind == JOBS and done.write.verb == "delete":
        return [("Normal", "SuccessfulDelete", f"Deleted job {done.name}")]
    if done.write.verb != "status" or done.before is None:
        return []
    active = {r.get("uid") for r in base.maps(at(done.after, "status", "active"))}
    found: list[_Words] = []
    for ref in base.maps(at(done.before, "status", "active")):
        job = view.get(ObjectKey(*JOBS, about.key.namespace, str(ref.get("name"))))
        if ref.get("uid") in active or job is None or base.uid(job.object) != ref.get("uid"):
            continue
        if how := ended(job.object):
            found.append(("Normal", "SawCompletedJob", f"Saw completed job: {job.key.name}, condition: {how}"))
    return found


def _disruption(view: View, about: Seen, done: Done) -> list[_Words]:
    if done.write.verb != "status":
        return []
    said = base.condition(done.after, "DisruptionAllowed") or {}
    if said.get("reason") == "SyncFailed":
        text = f"Failed to calculate the number of expected pods: {said.get('message')}"
        return [("Warning", "CalculateExpectedPodCountFailed", text)]
    if at(done.after, "status", "expectedPods"):
        return []
    selector = at(done.after, "spec", "selector")
    if any(selecting.selects(selector, base.labels(p.object)) for p in view.list(PODS, about.key.namespace)):
        return []
    return [("Normal", "NoPods", "No matching pods found")]


_OF: dict[str, Callable[[View, Seen, Done], list[_Words]]] = {
    "deployment": _deployment,
    "replicaset": _pods,
    "replicationcontroller": _pods,
    "daemonset": _daemonset,
    "statefulset": _statefulset,
    "job": _job,
    "cronjob": _cronjob,
    "disruption": _disruption,
}
