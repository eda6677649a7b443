"""Get and list: pages that fit each other, in the form the client wants."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bus.kube import errors, subresources
from bus.kube.http import answers, pages
from bus.kube.http.context import Context
from bus.kube.printing.columns import Printer
from bus.kube.storage import Object, Stored
from bus.kube.targets import Filter


async def get(ctx: Context) -> web.Response:
    target, registry = ctx.target, ctx.server.registry
    rev = ctx.revision()
    if rev:
        await registry.wait_revision(rev)
    stored = registry.stored(target)
    await registry.converter.prime([stored.object], target.resource, target.version.name)
    obj = registry.show(target.resource, target.version, stored)
    obj = subresources.get(target.resource, target.version, obj, target.subresource)
    return answer_object(ctx, obj)


def answer_object(ctx: Context, obj: Object, code: int = 200, warnings: Any = ()) -> web.Response:
    """One object in the form the client wants."""
    out = ctx.output
    if out.form == "partial" and obj.get("kind") != "Status":
        obj = answers.partial(obj, out.version)
    elif out.form == "table" and obj.get("kind") != "Status":
        obj = printer(ctx).table([obj], obj["metadata"].get("resourceVersion", ""), version=out.version)
    return answers.respond(obj, code, out, warnings)


def printer(ctx: Context) -> Printer:
    """For the rows of what is asked for."""
    registry, include = ctx.server.registry, ctx.query.get("includeObject", "") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        why = f"includeObject: Invalid value: {errors.show(include)}: must be 'Metadata', 'Object', 'None', or empty"
        raise errors.bad_request(f"Unable to convert to Table as requested: {why}")
    return Printer(ctx.target.resource, ctx.target.version, registry.reader, registry.now_us, include)


async def listing(ctx: Context) -> web.Response:
    target, registry = ctx.target, ctx.server.registry
    res, ver = target.resource, target.version
    wanted = Filter(res, ver, ctx.query.get("labelSelector", ""), ctx.query.get("fieldSelector", ""))
    part = await pages.part(ctx)
    page: list[Stored] = []
    more = False
    for stored in part.snapshot.walk(part.after):
        if wanted.matches(stored.object):
            if part.limit and len(page) == part.limit:
                more = True
                break
            page.append(stored)
    rev = part.revision
    meta: Object = {"resourceVersion": str(rev)}
    if more:
        last = (page[-1].key.namespace, page[-1].key.name)
        namespace = target.namespace if ctx.address.namespace is not None else None
        meta["continue"] = pages.write(rev, last, namespace)
        if not wanted:
            meta["remainingItemCount"] = part.snapshot.count(last)
    elif res.custom:
        meta["continue"] = ""  # lists of custom resources always say it
    if res.conversion is None:
        items = [registry.show(res, ver, s) for s in page]
    else:
        items = await registry.all_presented(res, ver, page)
    out = ctx.output
    if out.form == "table":
        table = printer(ctx).table(items, str(rev), version=out.version)
        table["metadata"] = meta
        return answers.respond(table, 200, out)
    if out.form == "partial":
        head = {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{out.version}"}
        return answers.respond(
            {**head, "metadata": meta, "items": [answers.partial(i, out.version) for i in items]}, 200, out
        )
    if not res.custom:  # a typed list has said what its items are
        items = [{k: v for k, v in item.items() if k not in ("apiVersion", "kind")} for item in items]
    whole: Object = {"kind": res.list_kind, "apiVersion": res.api_version(ver.name), "metadata": meta}
    if len(items) > answers.BATCH and not out.yaml:
        body = await answers.encode_list(whole, items)
        response = answers.respond({}, 200, out)
        response.body = body
        return response
    return answers.respond({**whole, "items": items}, 200, out)
