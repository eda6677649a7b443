"""Makes the API's data files: the types of the built-in kinds, and KubeEdge's resource definitions, compact.

    python -m ops.kube_data types                 writes bus/kube/data/builtin.json and descriptions.json.gz
    python -m ops.kube_data lists FILE...         writes ops/kube_lists.json from OpenAPI v3 documents of an API server
    python -m ops.kube_data kubeedge FOLDER       writes schemas/data/kubeedge.json from KubeEdge's CRD manifests

The types come from the models of the official Python client (Apache-2.0), whose fields are the API's own.  What the
client doesn't carry (how lists and maps merge, what a field is when nobody sets it) comes from the documents that an API
server serves of itself (/openapi/v3/...), kept in ops/kube_lists.json.  KubeEdge's definitions are Apache-2.0 too; their
descriptions are left out, those of the types are in a file of their own.
"""

from __future__ import annotations

import gzip
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from schemas import kinds

DATA = Path(__file__).resolve().parent.parent / "bus" / "kube" / "data"
LISTS = Path(__file__).resolve().parent / "kube_lists.json"
DEFINITIONS = Path(__file__).resolve().parent.parent / "schemas" / "data"

# Beside the kinds of schemas/kinds.py: what requests and answers are made of.
EXTRA = ("V1Scale", "V1Binding", "V1Eviction", "V1DeleteOptions", "V1Status", "AuthenticationV1TokenRequest")
MODELS = r"(CoreV1|EventsV1|Apiext|Admissionreg|DiscoveryV1|RbacV1|AuthenticationV1|StorageV1|V1|V2)"
PREFIX = re.compile(
    r"^(CoreV1|EventsV1|ApiextensionsV1|AdmissionregistrationV1|DiscoveryV1|RbacV1|AuthenticationV1|StorageV1|V1|V2)"
)
MODEL_OF = {("", "Event"): "CoreV1Event", ("events.k8s.io", "Event"): "EventsV1Event"}
META = {
    "ObjectMeta",
    "ListMeta",
    "ManagedFieldsEntry",
    "OwnerReference",
    "LabelSelector",
    "LabelSelectorRequirement",
    "FieldSelectorRequirement",
}
META |= {"Condition", "Status", "StatusDetails", "StatusCause", "DeleteOptions", "Preconditions", "ShardInfo"}
PACKAGE = {
    "apps": r"Deployment.*|ReplicaSet.*|DaemonSet.*|StatefulSet.*|RollingUpdate.*|ControllerRevision",
    "batch": r"Job.*|CronJob.*|PodFailurePolicy.*|SuccessPolicy.*|UncountedTerminatedPods",
    "discovery": r"DiscoveryV1.*|Endpoint$|EndpointSlice$|EndpointConditions|EndpointHints|ForZone|ForNode",
    "admissionregistration": r"AdmissionregistrationV1.*|(Validating|Mutating)(Webhook|Admission).*|MatchCondition$|"
    r"MatchResources|"
    r"(Named)?RuleWithOperations|Param(Kind|Ref)|Validation$|Variable$|AuditAnnotation|TypeChecking|ExpressionWarning",
    "apiextensions": r"CustomResource.*|.*Webhook.*|SelectableField|ValidationRule|ApiextensionsV1ServiceReference",
    "coordination": r"Lease.*",
    "events": r"EventsV1.*",
    "autoscaling": r"Scale(Spec|Status)?$|HorizontalPodAutoscaler.*|CrossVersionObjectReference",
    "rbac": r"Role|RoleRef|RoleBinding|ClusterRole|ClusterRoleBinding|AggregationRule|PolicyRule|Subject$",
    "authorization": r".*SubjectAccessReview.*|.*RulesReview.*|(Non)?Resource(Attributes|Rule)|(Field|Label)SelectorAttr.*",
    "authentication": r"SelfSubjectReview.*|TokenReview.*|UserInfo|BoundObjectReference|TokenRequest.*",
    "policy": r"Eviction$|PodDisruptionBudget.*",
    "storage": r"StorageClass$|CSI(Driver|Node|StorageCapacity).*|VolumeAttachment.*|VolumeError|VolumeNodeResources|"
    r"VolumeAttributesClass$",
    "networking": r"Ingress.*|NetworkPolicy.*|HTTPIngress.*|IPBlock|ServiceBackendPort",
    "node": r"RuntimeClass$|Overhead$|Scheduling$",
    "scheduling": r"PriorityClass$",
}

QUANTITY_MAPS = {"limits", "requests", "capacity", "allocatable", "allocatedResources", "overhead", "podFixed"}
QUANTITY_MAPS |= {"hard", "used", "default", "defaultRequest", "max", "min", "maxLimitRequestRatio"}
QUANTITIES = {"sizeLimit", "divisor", "maximumVolumeSize"}
QUANTITY_FIELDS = {(owner, field) for owner in ("MetricTarget", "MetricValueStatus") for field in ("averageValue", "value")}
QUANTITY_FIELDS |= {("CSIStorageCapacity", "capacity"), ("HPAScalingRules", "tolerance")}
MICRO_TIMES = {"renewTime", "acquireTime", "eventTime", "lastObservedTime"}
PRESERVED = {("CustomResourceValidation", "openAPIV3Schema"), ("ManagedFieldsEntry", "fieldsV1")}
PRESERVED |= {("CustomResourceSubresources", "status"), ("ControllerRevision", "data")}
TOLD: tuple[str, ...] = ("default", "x-kubernetes-list-map-keys", "x-kubernetes-list-type", "x-kubernetes-map-type")
TOLD += ("x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy")
NOT_OURS = ("io.k8s.apimachinery.pkg.version", "io.k8s.kube-aggregator")
SCALARS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def definition(model: str) -> str:
    """``V1Container`` -> ``io.k8s.api.core.v1.Container``."""
    short = PREFIX.sub("", model)
    if model.startswith("V2"):
        return f"io.k8s.api.autoscaling.v2.{short}"
    if model.startswith("StorageV1"):
        return f"io.k8s.api.storage.v1.{short}"
    if short in META:
        return f"io.k8s.apimachinery.pkg.apis.meta.v1.{short}"
    for package, pattern in PACKAGE.items():
        if re.match(pattern, model if model.startswith(("EventsV1", "Apiext", "Admissionreg", "DiscoveryV1")) else short):
            if package == "apiextensions":
                return f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{short}"
            return f"io.k8s.api.{package}.v1.{short}"
    return f"io.k8s.api.core.v1.{short}"


def _node(type_text: str, owner: str, field: str) -> dict[str, Any]:
    if (owner, field) in PRESERVED:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if m := re.fullmatch(r"List\[(.*)\]", type_text):
        return {"type": "array", "items": _node(m[1], "", "")}
    if m := re.fullmatch(r"Dict\[str, (.*)\]", type_text):
        value = {"type": "string", "format": "quantity"} if field in QUANTITY_MAPS else _node(m[1], "", "")
        return {"type": "object", "additionalProperties": value}
    if type_text == "object":
        return {"x-kubernetes-int-or-string": True}
    if type_text == "bytes":
        return {"type": "string", "format": "byte"}
    if type_text == "datetime":
        return {"type": "string", "format": "micro-time" if field in MICRO_TIMES else "date-time"}
    if type_text == "str" and (field in QUANTITIES or (owner, field) in QUANTITY_FIELDS):
        return {"type": "string", "format": "quantity"}
    if type_text in SCALARS:
        return {"type": SCALARS[type_text]}
    return {"$ref": definition(type_text)}


def _told(node: dict[str, Any]) -> dict[str, Any]:
    """What a served schema says beyond the type."""
    return {key: node[key] for key in sorted(node) if key in TOLD}


def lists(documents: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """``{definition: {field: {"x-kubernetes-list-type": ...}}}``; what is said of the whole type is under ""."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for document in documents:
        for name, schema in document.get("components", {}).get("schemas", {}).items():
            said = {"": _told(schema), **{f: _told(n) for f, n in schema.get("properties", {}).items()}}
            out[name] = {field: told for field, told in sorted(said.items()) if told}
    return {name: out[name] for name in sorted(out) if out[name] and not name.startswith(NOT_OURS)}


def types() -> dict[str, Any]:
    """``{"definitions": {name: schema}, "kinds": {"<group>/<version>/<Kind>": name}}``."""
    models = importlib.import_module("kubernetes.client.models")  # by name: only the bridge may depend on the client
    builtin = [(k, v) for k in kinds.BUILTIN if not k.group.endswith("kubeedge.io") for v in k.versions]
    roots = {(k.group, v, k.kind): MODEL_OF.get((k.group, k.kind), f"{v.upper()}{k.kind}") for k, v in builtin}
    todo, done = [*roots.values(), *EXTRA], {}
    merging = json.loads(LISTS.read_text())
    while todo:
        model = todo.pop()
        if definition(model) in done:
            continue
        cls = getattr(models, model)
        owner = PREFIX.sub("", model)
        out: dict[str, Any] = {"type": "object", "properties": {}}
        said = merging.get(definition(model), {})
        needed = []
        by_alias = {f.serialization_alias or name: f for name, f in cls.model_fields.items()}
        for attribute, type_text in cls.openapi_types.items():
            field = cls.attribute_map[attribute]
            out["properties"][field] = {**_node(type_text, owner, field), **said.get(field, {})}
            if by_alias[field].is_required():
                needed.append(field)
            if (owner, field) not in PRESERVED:
                todo += [t for t in re.findall(r"\w+", type_text) if re.match(MODELS, t)]
        if needed:
            out["required"] = sorted(needed)
        out |= said.get("", {})
        done[definition(model)] = out
    names = {f"{g}/{v}/{k}": definition(m) for (g, v, k), m in roots.items()}
    return {"definitions": done, "kinds": names}


def descriptions(names: list[str]) -> dict[str, dict[str, str]]:
    """What the client's models say of each definition in ``names`` and of its fields; the type's own is under ""."""
    models = importlib.import_module("kubernetes.client.models")
    out: dict[str, dict[str, str]] = {}
    for model in [
        *filter(
            re.compile(MODELS + "[A-Z]").match,
            dir(models),
        )
    ]:
        cls, name = getattr(models, model), definition(model)
        if name not in names or not hasattr(cls, "model_fields"):
            continue
        said = {f.serialization_alias or n: f.description for n, f in cls.model_fields.items() if f.description}
        own = (cls.__doc__ or "").split("Attributes:")[0].strip()
        out[name] = {**({"": own} if own else {}), **said}
    return out


def without_descriptions(value: Any, names: bool = False) -> Any:
    """A schema without its prose; ``names`` says that the keys are field names, of which one may be ``description``."""
    if isinstance(value, dict):
        return {
            k: without_descriptions(v, names=not names and k == "properties")
            for k, v in value.items()
            if names or not (k == "description" and isinstance(v, str))
        }
    return [without_descriptions(v) for v in value] if isinstance(value, list) else value


def kubeedge(folder: Path) -> list[dict[str, Any]]:
    """Every definition but those of its bookkeeping (reliablesyncs): that is what the log is for here."""
    yaml = importlib.import_module("yaml")
    out = []
    for path in sorted(folder.glob("*.yaml")):
        crd = without_descriptions(yaml.safe_load(path.read_text()))
        if crd["spec"]["group"] != "reliablesyncs.kubeedge.io":
            out.append({k: crd[k] for k in ("apiVersion", "kind", "metadata", "spec")})
    return out


def text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n"


def main(argv: list[str]) -> int:
    if argv[:1] == ["types"]:
        made = types()
        (DATA / "builtin.json").write_text(text_of(made))
        said = text_of(descriptions(list(made["definitions"]))).encode()
        (DATA / "descriptions.json.gz").write_bytes(gzip.compress(said, mtime=0))
    elif argv[:1] == ["lists"] and len(argv) > 1:
        LISTS.write_text(text_of(lists([json.loads(Path(file).read_text()) for file in argv[1:]])))
    elif argv[:1] == ["kubeedge"] and len(argv) == 2:
        (DEFINITIONS / "kubeedge.json").write_text(text_of(kubeedge(Path(argv[1]))))
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
