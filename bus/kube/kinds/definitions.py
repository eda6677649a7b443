"""CustomResourceDefinitions: accepted at once, because who serves them reads them where they are stored."""

from __future__ import annotations

import re
from typing import Any

from bus.kube import cel_rules, errors, names, validity
from bus.kube.errors import Cause
from bus.kube.kinds import admission_rules, definition_rules
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object, Stored

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
SCHEMA_DEPTH_MAX = 60
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


class Definitions(Strategy):
    unconditional_update = False
    generation = True
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        naming = spec.setdefault("names", {})
        if naming.get("kind"):
            naming.setdefault("singular", naming["kind"].lower())
            naming.setdefault("listKind", naming["kind"] + "List")
        conversion = spec.setdefault("conversion", {"strategy": "None"})
        service = at(conversion, "webhook", "clientConfig", "service")
        if isinstance(service, dict):
            service.setdefault("port", 443)
        for version in spec.get("versions") or []:
            _drop_nulls(at(version, "schema", "openAPIV3Schema"))

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = self._status(obj, {}, ctx)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        obj["status"] = self._status(obj, old.get("status") or {}, ctx)

    def _status(self, obj: Object, before: Object, ctx: Context) -> Object:
        storage = [v.get("name") for v in at(obj, "spec", "versions") or [] if v.get("storage")]
        accepted, problem = _accepted(obj, before.get("acceptedNames") or {}, ctx)
        known = {c.get("type"): c for c in before.get("conditions") or []}
        was = at(known, "Established", "status") == "True"
        if problem:
            new = [_condition("NamesAccepted", *problem, ctx.now, good=False)]
            if not was:
                said = "not all names are accepted"
                new.append(_condition("Established", "NotAccepted", said, ctx.now, good=False))
        else:
            new = [_condition("NamesAccepted", "NoConflicts", "no conflicts found", ctx.now)]
            said = "the initial names have been accepted"
            new.append(_condition("Established", "InitialNamesAccepted", said, ctx.now))
        for condition in new:
            had = known.get(condition["type"])
            if had is None or had.get("status") != condition["status"]:
                known[condition["type"]] = condition
        return {
            "acceptedNames": accepted,
            "storedVersions": list(dict.fromkeys([*(before.get("storedVersions") or []), *storage])),
            "conditions": list(known.values()),
        }

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        for field in ("group", "scope"):
            if not spec.get(field):
                out.append(errors.required(f"spec.{field}"))
        out += definition_rules.naming(spec["names"])
        if any(c.reason == "FieldValueRequired" for c in out):
            return out
        naming = spec["names"]
        want = f"{naming['plural']}.{spec['group']}"
        if obj["metadata"]["name"] != want:
            out.append(
                errors.bad_value("metadata.name", obj["metadata"]["name"], 'must be spec.names.plural+"."+spec.group')
            )
        if problem := names.dns_subdomain(spec["group"]):
            out.append(errors.bad_value("spec.group", spec["group"], problem))
        elif "." not in spec["group"]:
            out.append(errors.bad_value("spec.group", spec["group"], "should be a domain with at least one dot"))
        if spec["scope"] not in ("Cluster", "Namespaced"):
            out.append(errors.not_supported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
        out += _conversion(spec.get("conversion") or {}, "spec.conversion")
        return out + _spec_rules(obj) + _versions(spec.get("versions") or [])

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx) + _stored_rules(obj)
        for field, now, before in (
            ("spec.group", at(obj, "spec", "group"), at(old, "spec", "group")),
            ("spec.scope", at(obj, "spec", "scope"), at(old, "spec", "scope")),
            ("spec.names.plural", at(obj, "spec", "names", "plural"), at(old, "spec", "names", "plural")),
            ("spec.names.kind", at(obj, "spec", "names", "kind"), at(old, "spec", "names", "kind")),
        ):
            if now != before:
                out.append(errors.bad_value(field, now, "field is immutable"))
        return out


def _drop_nulls(node: Any) -> None:
    """A word of a schema that is null is none, in place; what defaults and enums hold are values."""
    if isinstance(node, list):
        for item in node:
            _drop_nulls(item)
    if not isinstance(node, dict):
        return
    for word in [w for w, value in node.items() if value is None]:
        if word not in ("default", "example"):
            del node[word]
    for word, value in node.items():
        if word not in ("default", "enum", "example"):
            _drop_nulls(value)


def _condition(kind: str, reason: str, message: str, now: str, good: bool = True) -> Object:
    status = "True" if good else "False"
    return {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}


def _accepted(obj: Object, had: Object, ctx: Context) -> tuple[Object, tuple[str, str] | None]:
    """The names that are nobody else's in the group, and the first that is (reason, message): pkg/controller/status of
    apiextensions.  What is not accepted stays as it was."""
    naming, group, own = obj["spec"]["names"], at(obj, "spec", "group"), obj["metadata"].get("name")
    resources: set[str] = set()
    kinds: set[str] = set()
    for s in ctx.reader.list("apiextensions.k8s.io", "customresourcedefinitions"):
        if s.key.name == own or at(s.object, "spec", "group") != group:
            continue
        theirs = at(s.object, "status", "acceptedNames") or {}
        resources |= {theirs.get("plural", ""), theirs.get("singular", ""), *(theirs.get("shortNames") or [])}
        kinds |= {theirs.get("kind", ""), theirs.get("listKind", "")}
    accepted, problem = dict(had), None
    fields = (
        ("plural", resources),
        ("singular", resources),
        ("shortNames", resources),
        ("kind", kinds),
        ("listKind", kinds),
    )
    for field, taken in fields:
        wanted = naming.get(field)
        used = [n for n in (wanted if isinstance(wanted, list) else [wanted]) if n and n in taken]
        if used:
            problem = problem or (f"{field[0].upper()}{field[1:]}Conflict", f"{errors.show(used[0])} is already in use")
        elif wanted:
            accepted[field] = wanted
        else:
            accepted.pop(field, None)
    if naming.get("categories"):
        accepted["categories"] = naming["categories"]
    return accepted, problem


REVIEWS = ("v1", "v1beta1")  # versions of ConversionReview that are spoken


def _conversion(conversion: Object, path: str) -> list[Cause]:
    """Fields are called as the real server calls them, which are not the names that people write."""
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook") or {}
    config, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    client, reviews = f"{path}.webhookClientConfig", f"{path}.conversionReviewVersions"
    if not strategy:
        return [errors.required(f"{path}.strategy")]
    out = admission_rules.chosen(strategy, f"{path}.strategy", ("None", "Webhook"))
    if strategy == "Webhook":
        if config is None:
            out.append(errors.required(client, "required when strategy is set to Webhook"))
        else:
            out += admission_rules.client_config(config, client)
        if not versions:
            return [*out, errors.required(reviews)]
        return out + admission_rules.review_versions(versions, reviews, REVIEWS)
    for found, where in ((config, client), (versions, reviews)):
        if found:
            out.append(errors.not_permitted(where, "should not be set when strategy is not set to Webhook"))
    return out


PRESERVE = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
APPROVED = "api-approved.kubernetes.io"


def _spec_rules(obj: Object) -> list[Cause]:
    out = []
    if obj["spec"].get("preserveUnknownFields") is True:
        out.append(errors.bad_value("spec.preserveUnknownFields", True, PRESERVE))
    group = str(obj["spec"].get("group"))
    protected = any(group == d or group.endswith("." + d) for d in ("k8s.io", "kubernetes.io"))
    if protected and APPROVED not in (obj["metadata"].get("annotations") or {}):
        why = f'protected groups must have approval annotation "{APPROVED}", see https://github.com/kubernetes/enhancements/pull/1111'
        out.append(errors.required(f"metadata.annotations[{APPROVED}]", why))
    return out


def _stored_rules(obj: Object) -> list[Cause]:
    """What was once written in a version can only be read with it."""
    there = {v.get("name") for v in at(obj, "spec", "versions") or []}
    out = []
    for i, name in enumerate(at(obj, "status", "storedVersions") or []):
        if name not in there:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions "
                f"until a storage migration ensures no data remains persisted in {name} and removes {name} from "
                "status.storedVersions"
            )
            out.append(errors.bad_value(f"status.storedVersions[{i}]", name, why))
    return out


def _versions(versions: list[Object]) -> list[Cause]:
    out = []
    if sum(bool(v.get("storage")) for v in versions) != 1:
        shown = versions or None
        out.append(errors.bad_value("spec.versions", shown, "must have exactly one version marked as storage version"))
    seen: set[str] = set()
    one = {f: definition_rules.together(versions, f) for f in ("schema", *_TOLD)}
    for i, v in enumerate(versions):
        path, name = f"spec.versions[{i}]", v.get("name", "")
        if problem := names.dns_label_1035(name):
            out.append(errors.bad_value(f"{path}.name", name, problem))
        if name in seen:
            out.append(errors.duplicate(f"{path}.name", name))
        seen.add(name)
        out += definition_rules.version(v, path)
        schema = at(v, "schema", "openAPIV3Schema")
        if schema is None:
            out.append(errors.required(f"{path}.schema.openAPIV3Schema"))
        elif i == 0 or not one["schema"]:
            at_schema = "spec.validation.openAPIV3Schema" if one["schema"] else f"{path}.schema.openAPIV3Schema"
            _root(schema, at_schema, out)
        for field in _TOLD:
            if i == 0 or not one[field]:
                out += _told(v, field, "spec" if one[field] else path)
    return out


_TOLD = ("subresources", "additionalPrinterColumns", "selectableFields")


def _told(v: Object, field: str, path: str) -> list[Cause]:
    if field == "subresources":
        return definition_rules.scale(at(v, field, "scale"), f"{path}.{field}.scale")
    listed = v.get(field) or []
    if field == "selectableFields":
        return definition_rules.selectable(listed, at(v, "schema", "openAPIV3Schema"), f"{path}.{field}")
    return [cause for i, one in enumerate(listed) for cause in definition_rules.column(one, f"{path}.{field}[{i}]")]


def _root(schema: Any, path: str, out: list[Cause]) -> None:
    if isinstance(schema, dict) and not schema.get("type"):
        out.append(errors.required(f"{path}.type", "must not be empty at the root"))
        return
    before = len(out)
    _schema(schema, path, out, 0)
    if len(out) == before and schema["type"] != "object":
        out.append(errors.bad_value(f"{path}.type", schema["type"], "must be object at the root"))


def _schema(node: Any, path: str, out: list[Cause], depth: int, junctor: bool = False) -> None:
    """The rules of structural schemas that everything else here relies on; below a junctor no types are needed."""
    if not isinstance(node, dict) or depth > SCHEMA_DEPTH_MAX:
        out.append(errors.bad_value(path, node, f"must be a schema, nested at most {SCHEMA_DEPTH_MAX} deep"))
        return
    free = node.get("x-kubernetes-preserve-unknown-fields") or node.get("x-kubernetes-int-or-string")
    kind = node.get("type")
    if kind is None and not free and not junctor:
        out.append(errors.required(f"{path}.type", "must not be empty for specified object fields"))
    elif kind is not None and kind not in _TYPES:
        out.append(errors.not_supported(f"{path}.type", kind, _TYPES))
    if "$ref" in node:
        out.append(errors.not_permitted(f"{path}.$ref", "$ref is not supported"))
    if kind == "array" and not isinstance(node.get("items"), dict) and not junctor:
        out.append(errors.required(f"{path}.items", "must be specified"))
    if "pattern" in node:
        try:
            validity.compiled(node["pattern"])
        except (re.error, TypeError, OverflowError) as e:
            out.append(errors.bad_value(f"{path}.pattern", node["pattern"], f"must be a valid regular expression: {e}"))
    out += _extensions(node, path)
    out += definition_rules.words(node, path, inside=junctor) + definition_rules.lists(node, path)
    rules = node.get("x-kubernetes-validations")
    if rules:
        wrong = cel_rules.problems(rules, f"{path}.x-kubernetes-validations")
        out += wrong
        for i, rule in enumerate([] if wrong else rules):
            compares = "oldSelf" in cel_rules.compiled(rule["rule"]).variables()
            out += definition_rules.rule(rule, node, f"{path}.x-kubernetes-validations[{i}]", compares)
    for name, field in _items(node.get("properties"), path, out):
        _schema(field, f"{path}.properties[{name}]", out, depth + 1, junctor)
    if isinstance(node.get("additionalProperties"), dict):
        _schema(node["additionalProperties"], f"{path}.additionalProperties", out, depth + 1, junctor)
    if "items" in node:
        _schema(node["items"], f"{path}.items", out, depth + 1, junctor)
    for word in ("allOf", "anyOf", "oneOf"):
        for i, sub in enumerate(node.get(word) or []):
            _schema(sub, f"{path}.{word}[{i}]", out, depth + 1, True)
    if "not" in node:
        _schema(node["not"], f"{path}.not", out, depth + 1, True)
    _keywords(node, path, out)
    if "default" in node and not junctor:
        for cause in validity.validate(node["default"], node, f"{path}.default") if not out else ():
            out.append(cause)


def _extensions(node: Object, path: str) -> list[Cause]:
    """Of the words that only Kubernetes' schemas have, and those that they may not have."""
    out = []
    kind, more = node.get("type"), node.get("additionalProperties")
    if node.get("uniqueItems") is True:
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        out.append(errors.not_permitted(f"{path}.uniqueItems", why))
    if more is False:
        out.append(errors.not_permitted(f"{path}.additionalProperties", "additionalProperties cannot be set to false"))
    elif more is not None and node.get("properties"):
        why = "additionalProperties and properties are mutual exclusive"
        out.append(errors.not_permitted(f"{path}.additionalProperties", why))
    for word in ("preserve-unknown-fields", "embedded-resource"):
        if node.get(f"x-kubernetes-{word}") is False and word == "preserve-unknown-fields":
            out.append(errors.bad_value(f"{path}.x-kubernetes-{word}", False, "must be true or undefined"))
    if node.get("x-kubernetes-embedded-resource") and kind != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        out.append(errors.bad_value(f"{path}.type", kind or "", why))
    listing, keys = node.get("x-kubernetes-list-type"), node.get("x-kubernetes-list-map-keys")
    if listing is not None and listing not in ("atomic", "map", "set"):
        out.append(errors.not_supported(f"{path}.x-kubernetes-list-type", listing, ("atomic", "map", "set")))
    if listing is not None and kind != "array":
        why = "must be array if x-kubernetes-list-type is " + str(listing)
        out.append(errors.bad_value(f"{path}.type", kind or "", why))
    if listing == "map":
        if not keys:
            why = "must not be empty if x-kubernetes-list-type is map"
            out.append(errors.required(f"{path}.x-kubernetes-list-map-keys", why))
        items = node.get("items") if isinstance(node.get("items"), dict) else {}
        fields = (items or {}).get("properties") or {}
        for i, key in enumerate(keys if isinstance(keys, list) else []):
            if key not in fields:
                out.append(
                    errors.bad_value(
                        f"{path}.x-kubernetes-list-map-keys[{i}]", key, "entries must all be names of item properties"
                    )
                )
            elif key not in ((items or {}).get("required") or []) and "default" not in fields[key]:
                why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
                out.append(errors.required(f"{path}.items.properties[{key}].default", why))
    elif keys:
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        out.append(errors.bad_value(f"{path}.x-kubernetes-list-type", listing or "", why))
    maps = node.get("x-kubernetes-map-type")
    if maps is not None and maps not in ("atomic", "granular"):
        out.append(errors.not_supported(f"{path}.x-kubernetes-map-type", maps, ("atomic", "granular")))
    return out


def _items(properties: Any, path: str, out: list[Cause]) -> list[tuple[str, Any]]:
    if properties is None:
        return []
    if not isinstance(properties, dict):
        out.append(errors.bad_value(f"{path}.properties", properties, "must be a map of schemas"))
        return []
    return list(properties.items())


_WORDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), (int,)),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), (int, float)),
    **dict.fromkeys(("enum", "required", "allOf", "anyOf", "oneOf", "x-kubernetes-list-map-keys"), (list,)),
    **dict.fromkeys(("pattern", "format", "description", "title"), (str,)),
}


def _keywords(node: Object, path: str, out: list[Cause]) -> None:
    for word, python in _WORDS.items():
        if word in node and (not isinstance(node[word], python) or isinstance(node[word], bool)):
            out.append(errors.bad_value(f"{path}.{word}", node[word], f"must be {' or '.join(p.__name__ for p in python)}"))


def terminating(crd: Object, now: str) -> Object:
    """A definition (a copy) that is being deleted: its objects go first."""
    meta, status = crd["metadata"], crd.setdefault("status", {})
    meta["finalizers"] = list(dict.fromkeys([*meta.get("finalizers", []), CLEANUP]))
    if meta.get("deletionTimestamp"):
        return crd
    meta["deletionTimestamp"] = now
    said = "CustomResource deletion is pending"
    others = [c for c in status.get("conditions") or [] if c.get("type") != "Terminating"]
    status["conditions"] = [*others, _condition("Terminating", "InstanceDeletionPending", said, now)]
    return crd


def is_terminating(stored: Stored | None) -> bool:
    meta = stored.object["metadata"] if stored is not None else {}
    return bool(meta.get("deletionTimestamp")) and CLEANUP in (meta.get("finalizers") or [])


def refused(crd: Object) -> bool:
    """Whether it waits for a name."""
    listed = at(crd, "status", "conditions") or []
    return any(c.get("type") == "NamesAccepted" and c.get("status") == "False" for c in listed)


def again(crd: Object) -> Object:
    """Nothing of it changes, but its names are looked at again."""
    del crd["metadata"]["resourceVersion"]
    return crd
