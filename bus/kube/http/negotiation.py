"""In which form a client wants the answer: JSON, YAML, a Table, or only the metadata (API concepts, "Alternate
representations").  Protobuf is not offered: its clients name JSON as second choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bus.kube import errors

Form = Literal["object", "table", "partial"]
# What the real server lists; it is told to nobody but who accepts none of them, and protobuf is never answered.
ACCEPTED = (
    *("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"),
    *("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"),
)
ONE = ACCEPTED[:3]  # of what can't be watched
CHOICES_MAX = 32


@dataclass(frozen=True, slots=True)
class Output:
    form: Form = "object"
    version: str = "v1"  # of meta.k8s.io
    yaml: bool = False

    @property
    def content_type(self) -> str:
        return "application/yaml" if self.yaml else "application/json"


def choose(accept: str, *, watched: bool = False) -> Output:
    """The first of the client's choices that can be served; raises StatusError 406.  ``watched``: what is asked for is a
    collection, which has media types of a watch too."""
    choices = [c.strip() for c in accept.split(",") if c.strip()][:CHOICES_MAX]
    if not choices:
        return Output()
    known = False
    for choice in choices:
        media, *params = [p.strip() for p in choice.split(";")]
        named = dict(p.split("=", 1) for p in params if "=" in p)
        media = media.lower()
        if media not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        known = True
        yaml = media == "application/yaml"
        kind, version = named.get("as"), named.get("v", "")
        if kind is None:
            return Output(yaml=yaml)
        if named.get("g") != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            continue
        if kind == "Table":
            return Output("table", version, yaml)
        if kind in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Output("partial", version, yaml)
    if known:
        raise errors.not_acceptable(ONE)
    raise errors.no_representation(ACCEPTED if watched else ONE)
