"""A small operator on kopf, run as a process by the test beside it: a Berth asks for a config map of its name."""

from __future__ import annotations

from typing import Any

import kopf
import kubernetes

GROUP, VERSION, PLURAL = "example.com", "v1", "berths"


def _core() -> Any:
    kubernetes.config.load_kube_config()
    return kubernetes.client.CoreV1Api()


@kopf.on.startup()
def quiet(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.loggers = True
    settings.persistence.finalizer = "berths.example.com/kopf"


@kopf.on.create(GROUP, VERSION, PLURAL)
def made(name: str, namespace: str | None, spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> dict[str, str]:
    body: dict[str, Any] = {"metadata": {"name": name}, "data": {"ship": spec["ship"]}}
    kopf.adopt(body)
    _core().create_namespaced_config_map(namespace, body)
    patch.status["phase"] = "Moored"
    return {"ship": spec["ship"]}


@kopf.on.update(GROUP, VERSION, PLURAL, field="spec.ship")
def changed(name: str, namespace: str | None, new: Any, patch: kopf.Patch, **_: Any) -> None:
    _core().patch_namespaced_config_map(name, namespace, {"data": {"ship": new}})
    patch.status["phase"] = "Moved"


@kopf.on.delete(GROUP, VERSION, PLURAL)
def left(name: str, namespace: str | None, **_: Any) -> None:
    _core().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-left"}})
