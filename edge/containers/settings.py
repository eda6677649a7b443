"""Limits of what we ask of a container engine."""

from __future__ import annotations

from dataclasses import dataclass

from edge.containers.pause import IMAGE


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    host: str = ""  # unix:// or tcp:// address; empty: DOCKER_HOST, then the usual sockets of Docker and Podman
    hub: str = ""  # id of the hub that the node belongs to, see labels.py
    sandbox_image: str = IMAGE  # another image is pulled when it is missing; it must do nothing but wait
    operations_max: int = 4  # short operations at once: more only queue inside the engine of a small machine
    pulls_max: int = 2  # images at once: they share one uplink and one flash card
    operation_timeout_s: float = 120.0  # create and start on a slow card take tens of seconds; longer means stuck
    pull_stall_timeout_s: float = 300.0  # a pull without any progress for this long is given up
    stop_slack_s: float = 30.0  # what a stop may take beyond its grace period
    reconnect_min_s: float = 1.0  # first wait after the engine was lost ...
    reconnect_max_s: float = 10.0  # ... and the longest: a restarted engine should be noticed soon
    exec_output_bytes_max: int = 10_240  # of a probe or hook, for its message; the kubelet keeps 10 kB too
