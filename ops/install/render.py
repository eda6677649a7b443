"""The plain manifests and the Helm chart, written from the one source.

    python -m ops.install          writes ops/install/manifests/ and ops/helm/skerry/

The chart's template is the same objects with Helm's expressions in the place of values: what Helm makes of its own default
values is what the command makes of ours, and a test renders it with Helm to see that.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from bus.stamp import VERSION
from ops.install import objects, values
from ops.install.objects import Object
from ops.install.values import Values

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ROOT / "install" / "manifests"
CHART = ROOT / "helm" / "skerry"

HELM = Values(
    host='{{ required "host: the name under which edge nodes reach the hub" .Values.host }}',
    namespace="{{ .Release.Namespace }}",
    image="{{ .Values.image }}",
    storage="{{ .Values.storage }}",
    storage_class="{{ .Values.storageClass }}",
    service_type="{{ .Values.serviceType }}",
    kubelet_csr="{{ .Values.kubeletCsr }}",
)
_HEAD = "# Made by `python -m ops.install`: change ops/install/objects.py instead.\n"
_EDIT = (
    f"# Replace {values.HOST_EXAMPLE} by the name or address under which your edge nodes reach the Service, then:\n"
    "#   kubectl apply --server-side -f definitions.yaml -f skerry.yaml\n"
)
_STORAGE_CLASS = re.compile(r"^( *)storageClassName: .*\n", re.MULTILINE)


def documents(found: list[Object]) -> str:
    return "---\n".join(yaml.safe_dump(o, sort_keys=False, width=1000, allow_unicode=True) for o in found)


def manifests() -> dict[str, str]:
    """File name -> text, of the plain manifests."""
    plain = documents(objects.objects(Values(host=values.HOST_EXAMPLE)))
    return {"definitions.yaml": _HEAD + documents(objects.definitions()), "skerry.yaml": _HEAD + _EDIT + plain}


def chart() -> dict[str, str]:
    """File name -> text, of the Helm chart.  Its namespace is Helm's to make (``--create-namespace``)."""
    made = [o for o in objects.objects(HELM) if o["kind"] != "Namespace"]
    template = "---\n".join(_when(o, documents([o])) for o in made)
    template = _STORAGE_CLASS.sub(
        r"\1{{- with .Values.storageClass }}\n\1storageClassName: '{{ . }}'\n\1{{- end }}\n", template
    )
    return {
        "Chart.yaml": _HEAD + _chart_yaml(),
        "values.yaml": _HEAD + _values_yaml(),
        "crds/definitions.yaml": _HEAD + documents(objects.definitions()),
        "templates/skerry.yaml": template,
        "templates/NOTES.txt": NOTES,
    }


def _when(obj: Object, text: str) -> str:
    """Wrapped in the values on which it depends."""
    wanted = {
        objects.CSR_ROLE: 'if ne .Values.kubeletCsr "none"',
        objects.APPROVER_ROLE: 'if eq .Values.kubeletCsr "approve"',
    }
    condition = wanted.get(obj["metadata"]["name"])
    return f"{{{{- {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text


def _chart_yaml() -> str:
    about = {
        "apiVersion": "v2",
        "name": "skerry",
        "description": "Containers and devices on edge nodes, from this cluster's API, over a log of events",
        "type": "application",
        "version": VERSION,
        "appVersion": VERSION,
    }
    return yaml.safe_dump(about, sort_keys=False)


def _values_yaml() -> str:
    v = Values(host="")
    return (
        "# The name or address under which edge nodes reach the Service.  It has no default.\n"
        'host: ""\n'
        f"image: {v.image}\n"
        "# Holds the whole log: see docs/SIZING.md.\n"
        f"storage: {v.storage}\n"
        '# "" is the cluster\'s default.\n'
        'storageClass: ""\n'
        f"# {', '.join(values.SERVICE_TYPES)}\n"
        f"serviceType: {v.service_type}\n"
        "# The kubelets' certificate, signed by the cluster: request (an administrator approves it), approve, or none.\n"
        f"kubeletCsr: {v.kubelet_csr}\n"
    )


NOTES = """\
Skerry's hub is in {{ .Release.Namespace }}.  To let a machine join as an edge node:

  kubectl -n {{ .Release.Namespace }} exec deploy/skerry -c cloud -- skerry token create --node edge-1 --ttl 1h
"""


def write() -> list[Path]:
    """Everything, where it belongs; returns the files."""
    out = []
    for folder, files in ((MANIFESTS, manifests()), (CHART, chart())):
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            out.append(path)
    return out
