"""Which container a request means, by what the pods core knows.  Pure.

Source: kubelet, validateContainerLogStatus, for the choice and for the words of a refusal.
"""

from __future__ import annotations

from bus.tunnel import TunnelRefused
from edge.core import status
from edge.core.pod_state import ContainerState, PodState

_PULLING = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}


def _refuse(why: str) -> TunnelRefused:
    return TunnelRefused(400, "BadRequest", why)


def for_logs(pod: PodState, name: str, previous: bool) -> str:
    """Id of the container whose log is meant.  Raises TunnelRefused."""
    where = f'container "{name}" in pod "{pod.name}"'
    own = pod.containers.get(name) or ContainerState(name)
    if previous:
        last = status.last_ended(own)
        if last is None:
            raise _refuse(f"previous terminated {where} not found")
        return last.id
    current = own.current
    if current is not None and current.state != "created":
        return current.id
    if own.previous is not None:
        return own.previous.id
    reason = own.waiting[0] if own.waiting is not None else "ContainerCreating"
    raise _refuse(f"{where} is waiting to start: {_PULLING.get(reason, reason)}")


def running(pod: PodState, name: str) -> str:
    """Id of the running container of this name.  Raises TunnelRefused."""
    own = pod.containers.get(name)
    if own is None or own.current is None or own.current.state != "running":
        raise _refuse(f'container not found ("{name}"): it does not run')
    return own.current.id


def address(pod: PodState) -> str:
    """Where the pod's ports are.  Raises TunnelRefused."""
    if pod.pod is not None and pod.pod.host_network and pod.sandbox is not None:
        return "127.0.0.1"
    if not pod.pod_ip:
        raise _refuse(f'pod "{pod.name}" does not run')
    return pod.pod_ip
