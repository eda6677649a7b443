"""What is invalid in a pod's volumes, of every source (pkg/apis/core/validation, ValidateVolumes).

Sources are checked in the order of ``_SOURCES``; of a volume with several, only the first of them is looked into."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks, claim_spec, pod_fields, pod_projected
from bus.kube.storage import Object

HOST_PATH_TYPES = (*("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"),)
_DISK_KINDS, _CACHING = ("Dedicated", "Managed", "Shared"), ("None", "ReadOnly", "ReadWrite")
_MANAGED_URI = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
_BLOB_URI = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
_ISCSI = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9-.]+)(:[^,;*&$|\s]+)\Z"),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}\Z"),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}\Z"),
}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose volumes: ``name`` of a pod ("" for a template or a name to be made); ``pod``: not a template."""

    name: str = ""
    pod: bool = False


Rule = Callable[[Object, str, Owner], list[Cause]]


def volumes(listed: list[Object], path: str, owner: Owner) -> tuple[dict[str, Object], list[Cause]]:
    """The good volumes by name, and what is wrong with the others."""
    out: list[Cause] = []
    good: dict[str, Object] = {}
    made = {f"{owner.name}-{v.get('name', '')}" for v in listed if owner.name and v.get("ephemeral") is not None}
    for i, volume in enumerate(listed):
        at, name = f"{path}[{i}]", volume.get("name") or ""
        found = _source(volume, at, owner)
        found += checks.text(f"{at}.name", name, names.dns_label) if name else [errors.required(f"{at}.name")]
        if name in good:
            found.append(errors.duplicate(f"{at}.name", name))
        if not found:
            good[name] = volume
        out += found
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in made:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            out.append(errors.bad_value(f"{at}.persistentVolumeClaim.claimName", claim, why))
    return good, out


def _source(volume: Object, path: str, owner: Owner) -> list[Cause]:
    out: list[Cause] = []
    found = False
    for field, (named, inner, rule) in _SOURCES.items():
        source = volume.get(field)
        if source is None:
            continue
        if found:
            out.append(errors.not_permitted(f"{path}.{named}", "may not specify more than 1 volume type"))
        else:
            out += rule(source, f"{path}.{inner}", owner)
            if field == "ephemeral":
                out += _claim_name(volume, path, owner)
        found = True
        if field == "iscsi" and source.get("initiatorName") is not None:
            name = volume.get("name") or ""
            if len(f"{name}:{source.get('targetPortal') or ''}") > 64:
                why = (
                    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if "
                    "iscsi.initiatorName is specified."
                )
                out.append(errors.bad_value(f"{path}.name", name, why))
    return out if found else [errors.required(path, "must specify a volume type")]


def _needs(*fields: str) -> Rule:
    return lambda s, path, _: [errors.required(f"{path}.{f}") for f in fields if not s.get(f)]


def _empty_dir(s: Object, path: str, owner: Owner) -> list[Cause]:
    if s.get("sizeLimit") is not None and quantity.parse(s["sizeLimit"]) < 0:
        return [errors.not_permitted(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _host_path(s: Object, path: str, owner: Owner) -> list[Cause]:
    if not s.get("path"):
        return [errors.required(f"{path}.path")]
    out = checks.no_steps_back(f"{path}.path", s["path"])
    return out + ([] if s.get("type") is None else checks.listed(f"{path}.type", s["type"], HOST_PATH_TYPES))


def _git(s: Object, path: str, owner: Owner) -> list[Cause]:
    return _needs("repository")(s, path, owner) + checks.relative_path(f"{path}.directory", s.get("directory") or "")


def _disk(field: str) -> Rule:
    def rule(s: Object, path: str, owner: Owner) -> list[Cause]:
        out = _needs(field)(s, path, owner)
        if not 0 <= s.get("partition", 0) <= 255:
            out.append(errors.bad_value(f"{path}.partition", s["partition"], "must be between 1 and 255, inclusive"))
        return out

    return rule


def _keys(field: str) -> Rule:
    def rule(s: Object, path: str, owner: Owner) -> list[Cause]:
        out = _needs(field)(s, path, owner) + checks.file_mode(f"{path}.defaultMode", s.get("defaultMode"))
        for i, item in enumerate(s.get("items") or []):
            out += pod_projected.key(item, f"{path}.items[{i}]")
        return out

    return rule


def _nfs(s: Object, path: str, owner: Owner) -> list[Cause]:
    out, where = _needs("server", "path")(s, path, owner), s.get("path") or ""
    if not where.startswith("/"):
        out.append(errors.bad_value(f"{path}.path", where, "must be an absolute path"))
    return out


def _iscsi_name(path: str, name: str) -> list[Cause]:
    form = _ISCSI.get(name[:3])
    if form is None:
        return [errors.bad_value(path, name, "must be valid format starting with iqn, eui, or naa")]
    return [] if form.match(name) else [errors.bad_value(path, name, "must be valid format")]


def _iscsi(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = _needs("targetPortal", "iqn")(s, path, owner)
    if s.get("iqn"):
        out += _iscsi_name(f"{path}.iqn", s["iqn"])
    out += checks.between(f"{path}.lun", s.get("lun", 0), 0, 255)
    if (s.get("chapAuthDiscovery") or s.get("chapAuthSession")) and s.get("secretRef") is None:
        out.append(errors.required(f"{path}.secretRef"))
    if s.get("initiatorName") is not None:
        out += _iscsi_name(f"{path}.initiatorname", s["initiatorName"])
    return out


def _flocker(s: Object, path: str, owner: Owner) -> list[Cause]:
    name, uid, out = s.get("datasetName") or "", s.get("datasetUUID") or "", []
    if not name and not uid:
        out.append(errors.required(path, "one of datasetName and datasetUUID is required"))
    if name and uid:
        why = "datasetName and datasetUUID can not be specified simultaneously"
        out.append(errors.bad_value(path, "resource", why))
    if "/" in name:
        out.append(errors.bad_value(f"{path}.datasetName", name, "must not contain '/'"))
    return out


def _named_secret(*fields: str) -> Rule:
    def rule(s: Object, path: str, owner: Owner) -> list[Cause]:
        out = _needs(*fields)(s, path, owner)
        if s.get("secretRef") is not None and not s["secretRef"].get("name"):
            out.append(errors.required(f"{path}.secretRef.name"))
        return out

    return rule


def _quobyte(s: Object, path: str, owner: Owner) -> list[Cause]:
    registry, out = s.get("registry") or "", []
    why = "must be a host:port pair or multiple pairs separated by commas"
    if not registry:
        out.append(errors.required(f"{path}.registry", why))
    elif len(s.get("tenant") or "") >= 65:
        long = "must be a UUID and may not exceed a length of 64 characters"
        out.append(errors.required(f"{path}.tenant", long))
    else:
        pairs = registry.split(",")
        bad = [p for p in pairs if not re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*", p)]
        out += [errors.bad_value(f"{path}.registry", registry, why) for _ in bad]
    return out + _needs("volume")(s, path, owner)


def _downward(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = checks.file_mode(f"{path}.defaultMode", s.get("defaultMode"))
    for item in s.get("items") or []:
        out += pod_fields.file(item, path)
    return out


def _fc(s: Object, path: str, owner: Owner) -> list[Cause]:
    targets, ids, out = s.get("targetWWNs") or [], s.get("wwids") or [], []
    if not targets and not ids:
        out.append(errors.required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both"))
    if targets and ids:
        why = "targetWWNs and wwids can not be specified simultaneously"
        out.append(errors.bad_value(f"{path}.targetWWNs", targets, why))
    if targets and s.get("lun") is None:
        out.append(errors.required(f"{path}.lun", "lun is required if targetWWNs is specified"))
    elif targets:
        out += checks.between(f"{path}.lun", s["lun"], 0, 255)
    return out


def _flex(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = _needs("driver")(s, path, owner)
    for key in s.get("options") or {}:
        if f".{key.split('/', 1)[0].lower()}".endswith((".kubernetes.io", ".k8s.io")):
            why = "kubernetes.io and k8s.io namespaces are reserved"
            out.append(errors.bad_value(f"{path}.options[{key}]", key, why))
    return out


def _azure_disk(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = _needs("diskName", "diskURI")(s, path, owner)
    kind, uri = s.get("kind"), s.get("diskURI") or ""
    for field, known in (("cachingMode", _CACHING), ("kind", _DISK_KINDS)):
        if s.get(field) is not None:
            out += checks.listed(f"{path}.{field}", s[field], known)
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        out.append(errors.not_supported(f"{path}.diskURI", uri, [_MANAGED_URI]))
    if kind not in (None, "Managed") and not uri.startswith("https://"):
        out.append(errors.not_supported(f"{path}.diskURI", uri, [_BLOB_URI]))
    return out


def _storage_os(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = _needs("volumeName")(s, path, owner)
    for field in ("volumeName", "volumeNamespace"):
        if s.get(field):
            out += checks.text(f"{path}.{field}", s[field], names.dns_label)
    return out + _named_secret()(s, path, owner)


def driver_name(path: str, name: str) -> list[Cause]:
    """Of a CSI driver."""
    if not name:
        return [errors.required(path)]
    out = [checks.too_long(path, 63)] if len(name) > 63 else []
    return out + checks.text(path, name, lambda n: names.dns_subdomain(n.lower()))


def _csi(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = driver_name(f"{path}.driver", s.get("driver") or "")
    if s.get("nodePublishSecretRef") is not None:
        name = s["nodePublishSecretRef"].get("name")
        if not name:
            out.append(errors.required(f"{path}.nodePublishSecretRef.name"))
        else:
            out += checks.text(f"{path}.name", name, names.dns_subdomain)
    return out


def _ephemeral(s: Object, path: str, owner: Owner) -> list[Cause]:
    template, at = s.get("volumeClaimTemplate"), f"{path}.volumeClaimTemplate"
    if template is None:
        return [errors.required(at)]
    meta = template.get("metadata") or {}
    out = checks.annotation_keys(f"{at}.metadata.annotations", meta.get("annotations"))
    out += checks.labels(f"{at}.metadata.labels", meta.get("labels"))
    for field in ("name", "generateName", "namespace", "ownerReferences", "finalizers"):
        if meta.get(field):
            out.append(errors.not_permitted(f"{at}.metadata.{field}", "cannot be set"))
    return out + claim_spec.rules(template.get("spec") or {}, f"{at}.spec")


def _claim_name(volume: Object, path: str, owner: Owner) -> list[Cause]:
    name = volume.get("name") or ""
    if not owner.name or not name:
        return []
    claim = f"{owner.name}-{name}"
    problem = names.dns_subdomain(claim)
    return [errors.bad_value(f"{path}.name", name, f'PVC name "{claim}": {problem}')] if problem else []


def _image(s: Object, path: str, owner: Owner) -> list[Cause]:
    out = [errors.required(f"{path}.reference")] if owner.pod and not s.get("reference") else []
    return out + checks.one_of(f"{path}.pullPolicy", s.get("pullPolicy"), ("Always", "IfNotPresent", "Never"))


# field: (its name when it is one too many, its name in paths of what is in it, its rule)
_SOURCES: dict[str, tuple[str, str, Rule]] = {
    "emptyDir": ("emptyDir", "emptyDir", _empty_dir),
    "hostPath": ("hostPath", "hostPath", _host_path),
    "gitRepo": ("gitRepo", "gitRepo", _git),
    "gcePersistentDisk": ("gcePersistentDisk", "persistentDisk", _disk("pdName")),
    "awsElasticBlockStore": ("awsElasticBlockStore", "awsElasticBlockStore", _disk("volumeID")),
    "secret": ("secret", "secret", _keys("secretName")),
    "nfs": ("nfs", "nfs", _nfs),
    "iscsi": ("iscsi", "iscsi", _iscsi),
    "glusterfs": ("glusterfs", "glusterfs", _needs("endpoints", "path")),
    "flocker": ("flocker", "flocker", _flocker),
    "persistentVolumeClaim": ("persistentVolumeClaim", "persistentVolumeClaim", _needs("claimName")),
    "rbd": ("rbd", "rbd", _needs("monitors", "image")),
    "cinder": ("cinder", "cinder", _named_secret("volumeID")),
    "cephfs": ("cephFS", "cephfs", _needs("monitors")),
    "quobyte": ("quobyte", "quobyte", _quobyte),
    "downwardAPI": ("downwarAPI", "downwardAPI", _downward),
    "fc": ("fc", "fc", _fc),
    "flexVolume": ("flexVolume", "flexVolume", _flex),
    "configMap": ("configMap", "configMap", _keys("name")),
    "azureFile": ("azureFile", "azureFile", _needs("secretName", "shareName")),
    "vsphereVolume": ("vsphereVolume", "vsphereVolume", _needs("volumePath")),
    "photonPersistentDisk": ("photonPersistentDisk", "photonPersistentDisk", _needs("pdID")),
    "portworxVolume": ("portworxVolume", "portworxVolume", _needs("volumeID")),
    "azureDisk": ("azureDisk", "azureDisk", _azure_disk),
    "storageos": ("storageos", "storageos", _storage_os),
    "projected": ("projected", "projected", lambda s, path, _: pod_projected.projected(s, path)),
    "scaleIO": ("scaleIO", "scaleIO", _needs("gateway", "system", "volumeName")),
    "csi": ("csi", "csi", _csi),
    "ephemeral": ("ephemeral", "ephemeral", _ephemeral),
    "image": ("image", "image", _image),
}
