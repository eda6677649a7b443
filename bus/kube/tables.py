"""What ``kubectl get`` shows: rows made by the server (API concepts, "Receiving resources as Tables")."""

from __future__ import annotations

from bus.kube.catalog import Resource, Version
from bus.kube.registry import Registry
from bus.kube.storage import Object


class Printer:
    """Rows of one resource.  ``include`` is None, Metadata or Object: what goes with each row."""

    def __init__(self, resource: Resource, version: Version, registry: Registry, include: str) -> None:
        self._include = include
        self.columns: list[Object] = [
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
        ]

    def table(self, objects: list[Object], rev: str, *, columns: bool = True, version: str = "v1") -> Object:
        rows = [
            {
                "cells": [o["metadata"]["name"], o["metadata"].get("creationTimestamp")],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": o["metadata"],
                },
            }
            for o in objects
        ]
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": {"resourceVersion": rev},
            "columnDefinitions": self.columns if columns else None,
            "rows": rows,
        }
