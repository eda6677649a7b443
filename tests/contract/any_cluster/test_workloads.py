"""A cluster's own controllers and scheduler over an edge node with real containers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.any_cluster.conftest import WAIT_S, Site, meta, sleeper, template, workload
from tests.contract.node_api.conftest import shell

HOSTNAME = "kubernetes.io/hostname"
pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]


def test_every_kind_of_workload(site: Site) -> None:
    once = template("once", shell("c", "echo done"), restartPolicy="Never")
    with site.namespace() as n:
        site.make(
            workload("Deployment", n, "web", template("web", sleeper()), replicas=2),
            workload("DaemonSet", n, "agent", template("agent", sleeper())),
            workload("StatefulSet", n, "db", template("db", sleeper()), replicas=2, serviceName="db"),
            workload("Job", n, "once", once, completions=3, parallelism=2),
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "metadata": meta("often", n),
                "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}},
            },
        )
        web = site.ready(n, "web", 2)
        assert {p["spec"]["nodeName"] for p in web} == {site.node}
        site.ready(n, "agent", 1)
        assert [p["metadata"]["name"] for p in site.ready(n, "db", 2)] == ["db-0", "db-1"]
        site.until("the job is complete", lambda: site.get("-n", n, "job", "once")["status"].get("succeeded") == 3)
        site.until("the cron job ran", lambda: site.get("-n", n, "cronjob", "often")["status"].get("lastSuccessfulTime"))
        assert site.ok("-n", n, "logs", "job/once") == b"done\n"

        site.ok("-n", n, "set", "env", "deployment/web", "ROUND=2")
        site.ok("-n", n, "rollout", "status", "deployment/web", f"--timeout={WAIT_S}s")
        assert {p["metadata"]["uid"] for p in site.ready(n, "web", 2)}.isdisjoint(p["metadata"]["uid"] for p in web)
        site.ok("-n", n, "rollout", "undo", "deployment/web")
        site.ok("-n", n, "rollout", "status", "deployment/web", f"--timeout={WAIT_S}s")


def test_drain_waits_for_a_budget_and_a_taint_ends_what_does_not_tolerate_it(site: Site) -> None:
    with site.namespace() as n:
        deployment = workload("Deployment", n, "web", template("web", sleeper()), replicas=2)
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta("web", n),
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        }
        site.make(deployment, budget)
        before = site.ready(n, "web", 2)

        def counted() -> dict[str, Any]:
            return site.get("-n", n, "pdb", "web").get("status") or {}

        site.until("the budget is counted", lambda: counted().get("currentHealthy") == 2)
        drain = ("drain", site.node, "--ignore-daemonsets", "--pod-selector=app=web", "--disable-eviction=false")
        try:
            refused = site.run(*drain, "--timeout=3s")
            assert refused.returncode != 0 and b"disruption budget" in refused.stderr, refused.stderr
            assert ids(site.ready(n, "web", 2)) == ids(before)
            site.ok("-n", n, "patch", "pdb", "web", "--type=merge", "-p", '{"spec":{"minAvailable":0}}')
            site.until("the budget allows it", lambda: counted().get("disruptionsAllowed"))
            site.ok(*drain, f"--timeout={WAIT_S}s")
            site.until("no container is left", lambda: not containers(site, n, "web"))
        finally:
            site.ok("uncordon", site.node)
        again = site.ready(n, "web", 2)
        assert ids(again).isdisjoint(ids(before))
        try:
            site.ok("taint", "node", site.node, "example.com/out=now:NoExecute")
            site.until("the taint has ended them", lambda: ids(site.pods_of(n, "web")).isdisjoint(ids(again)))
        finally:
            site.ok("taint", "node", site.node, "example.com/out-")
        site.ready(n, "web", 2)


def test_a_pod_s_token_is_one_of_this_cluster_and_names_the_pod(site: Site) -> None:
    with site.namespace() as n:
        site.ok("-n", n, "create", "serviceaccount", "reader")
        site.ok("-n", n, "create", "role", "reader", "--verb=get", "--resource=configmaps")
        site.ok("-n", n, "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={n}:reader")
        site.ok("-n", n, "create", "configmap", "mine", "--from-literal=k=1")
        site.make(workload("Deployment", n, "web", template("web", sleeper(), serviceAccountName="reader")))
        pod = site.ready(n, "web", 1)[0]
        where = "/var/run/secrets/kubernetes.io/serviceaccount"
        token = site.ok("-n", n, "exec", pod["metadata"]["name"], "--", "cat", f"{where}/token").decode()
        as_pod = ("--token", token, "-n", n)
        who = json.loads(site.ok_as(*as_pod, "auth", "whoami", "-o", "json"))["status"]["userInfo"]
        assert who["username"] == f"system:serviceaccount:{n}:reader"
        assert who["extra"]["authentication.kubernetes.io/pod-uid"] == [pod["metadata"]["uid"]]
        assert who["extra"]["authentication.kubernetes.io/node-name"] == [site.node]
        assert json.loads(site.ok_as(*as_pod, "get", "configmap", "mine", "-o", "json"))["data"] == {"k": "1"}
        assert site.run_as(*as_pod, "get", "secrets").returncode != 0
        ca = site.ok("-n", n, "exec", pod["metadata"]["name"], "--", "cat", f"{where}/ca.crt").decode()
        assert ca.strip() == site.get("-n", n, "configmap", "kube-root-ca.crt")["data"]["ca.crt"].strip()


def test_what_a_pod_mounts_follows_the_cluster(site: Site) -> None:
    volumes = [
        {"name": "c", "configMap": {"name": "conf"}},
        {"name": "s", "secret": {"secretName": "key"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    with site.namespace() as n:
        site.ok("-n", n, "create", "configmap", "conf", "--from-literal=mood=calm")
        site.ok("-n", n, "create", "secret", "generic", "key", "--from-literal=k=one")
        pod = template("web", sleeper(volumeMounts=mounts), volumes=volumes)
        site.make(workload("Deployment", n, "web", pod))
        name = site.ready(n, "web", 1)[0]["metadata"]["name"]

        def read(path: str) -> bytes:
            return site.run("-n", n, "exec", name, "--", "cat", path).stdout

        assert (read("/c/mood"), read("/s/k")) == (b"calm", b"one")
        site.ok("-n", n, "patch", "configmap", "conf", "--type=merge", "-p", '{"data":{"mood":"bright"}}')
        site.ok("-n", n, "patch", "secret", "key", "--type=merge", "-p", '{"stringData":{"k":"two"}}')
        site.ok("-n", n, "label", "pod", name, "mood=bright")
        site.until("the files follow", lambda: (read("/c/mood"), read("/s/k")) == (b"bright", b"two"))
        site.until("the labels follow", lambda: b'mood="bright"' in read("/d/labels"))


def test_a_local_volume_is_bound_by_the_scheduler(site: Site) -> None:
    with site.namespace() as n:
        folder = site.world.folder / "volume-of-a-pod"
        folder.mkdir()
        site.make(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": n},
                "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer",
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": n},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": n,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "local": {"path": str(folder)},
                    "nodeAffinity": {
                        "required": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "kubernetes.io/hostname", "operator": "In", "values": [site.node]}
                                    ]
                                }
                            ]
                        }
                    },
                },
            },
        )
        try:
            mount = [{"name": "data", "mountPath": "/data"}]
            pod = template("db", shell("c", "echo born >> /data/lives; exec sleep 100000", volumeMounts=mount))
            claim = {
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": n,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }
            made = workload("StatefulSet", n, "db", pod, serviceName="db", volumeClaimTemplates=[claim])
            site.make(made)
            first = site.ready(n, "db", 1)
            site.ok("-n", n, "delete", "pod", "db-0")
            site.until("another db-0", lambda: ids(site.ready(n, "db", 1)) != ids(first))
            assert (folder / "lives").read_text() == "born\nborn\n"
        finally:
            site.ok("-n", n, "delete", "statefulset/db", "pvc/data-db-0", "--ignore-not-found", "--wait=false")
            site.ok("delete", f"pv/{n}", f"storageclass/{n}", "--wait=false")


def test_a_grace_period_is_the_pod_s_and_force_is_force(site: Site) -> None:
    """The container notes how it was asked to end."""
    with site.namespace() as n:
        folder = site.world.folder / "ends"
        folder.mkdir()
        volumes = [{"name": "out", "hostPath": {"path": str(folder)}}]
        script = "trap 'echo asked > /out/$NAME; exit 0' TERM; while :; do sleep 0.1; done"
        for name in ("asked", "forced"):
            mounts = [{"name": "out", "mountPath": "/out"}]
            container = shell("c", script, env=[{"name": "NAME", "value": name}], volumeMounts=mounts)
            spec = {**template(name, container, volumes=volumes)["spec"], "terminationGracePeriodSeconds": 30}
            site.make(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta(name, n), "labels": {"app": name}}, "spec": spec}
            )
        for name in ("asked", "forced"):
            site.ready(n, name, 1)
        site.ok("-n", n, "delete", "pod", "asked")
        assert (folder / "asked").read_text() == "asked\n"
        site.ok("-n", n, "delete", "pod", "forced", "--grace-period=0", "--force")
        site.until("no container is left", lambda: not containers(site, n, "forced"))


def ids(pods: list[dict[str, Any]]) -> set[str]:
    return {p["metadata"]["uid"] for p in pods}


def containers(site: Site, namespace: str, app: str) -> list[str]:
    """Running ones, as the engine says."""
    asked = ["--filter", f"label=io.skerry.pod.namespace={namespace}", "--format", "{{.Names}}"]
    return [c for c in site.world.docker("ps", *asked).split() if c.startswith(f"skerry_c_{app}")]
