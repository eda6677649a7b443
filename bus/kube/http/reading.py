"""Get and list: pages that fit each other, in the form the client wants."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from aiohttp import web

from bus.kube import errors, subresources
from bus.kube.http import answers
from bus.kube.http.context import Context
from bus.kube.printing.columns import Printer
from bus.kube.storage import Expired, Object, Stored
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
    if out.form == "partial" and "metadata" in obj:
        obj = answers.partial(obj, out.version)
    elif out.form == "table" and obj.get("kind") != "Status":
        obj = printer(ctx).table([obj], obj["metadata"].get("resourceVersion", ""), version=out.version)
    return answers.respond(obj, code, out, warnings)


def printer(ctx: Context) -> Printer:
    """For the rows of what is asked for."""
    registry, include = ctx.server.registry, ctx.query.get("includeObject", "") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise errors.bad_request("includeObject is None, Metadata or Object")
    return Printer(ctx.target.resource, ctx.target.version, registry.reader, registry.now_us, include)


async def listing(ctx: Context) -> web.Response:
    target, registry = ctx.target, ctx.server.registry
    res, ver = target.resource, target.version
    wanted = Filter(res, ver, ctx.query.get("labelSelector", ""), ctx.query.get("fieldSelector", ""))
    limit = ctx.number("limit") or 0
    start, rev, stored = await _at_revision(ctx, bool(limit))
    matching = [s for s in stored if (s.key.namespace, s.key.name) > start and wanted.matches(s.object)]
    page = matching[:limit] if limit else matching
    meta: Object = {"resourceVersion": str(rev)}
    if len(page) < len(matching):
        meta["continue"] = _token(rev, page[-1])
        if not wanted:
            meta["remainingItemCount"] = len(matching) - len(page)
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
        return answers.respond({**head, "metadata": meta, "items": [answers.partial(i) for i in items]}, 200, out)
    whole: Object = {"kind": res.list_kind, "apiVersion": res.api_version(ver.name), "metadata": meta}
    if len(items) > answers.BATCH and not out.yaml:
        body = await answers.encode_list(whole, items)
        response = answers.respond({}, 200, out)
        response.body = body
        return response
    return answers.respond({**whole, "items": items}, 200, out)


async def _at_revision(ctx: Context, paged: bool) -> tuple[tuple[str, str], int, list[Stored]]:
    """Where to start, at which revision, and everything there was at it (API concepts, "Resource versions")."""
    target, registry = ctx.target, ctx.server.registry
    group, resource = target.resource.place
    namespace = target.namespace if target.resource.namespaced and ctx.address.namespace is not None else None
    token, match = ctx.query.get("continue", ""), ctx.query.get("resourceVersionMatch", "")
    asked = ctx.revision()
    if match and match not in ("Exact", "NotOlderThan"):
        cause = errors.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan"))
        raise errors.invalid("meta.k8s.io", "ListOptions", "", [cause])
    if match and (token or asked is None):
        why = "resourceVersionMatch is forbidden " + ("with continue" if token else "unless resourceVersion is provided")
        raise errors.bad_option("resourceVersionMatch", why)
    if token:
        if asked:
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        rev, start = _read_token(token)
    else:
        rev, start = asked or 0, ("", "")
        exact = match == "Exact" or (paged and not match and rev > 0)
        if match == "Exact" and not rev:
            why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            raise errors.bad_option("resourceVersionMatch", why)
        await registry.wait_revision(rev)
        if not exact:
            return start, registry.reader.revision(), registry.reader.list(group, resource, namespace)
    if rev > registry.reader.revision():
        await registry.wait_revision(rev)
    try:
        return start, rev, registry.reader.list_at(group, resource, namespace, rev)
    except Expired as e:
        what = "The provided continue parameter" if token else "The resourceVersion for the provided list"
        raise errors.expired(f"{what} is too old: {e}. You must start a new list without the continue parameter.") from e


def _token(rev: int, last: Stored) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": rev, "after": [last.key.namespace, last.key.name]})
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        raw = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        rev, (namespace, name) = raw["rv"], raw["after"]
        if not isinstance(rev, int) or rev < 1 or not isinstance(namespace, str) or not isinstance(name, str):
            raise ValueError("wrong types")
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError) as e:
        raise errors.bad_request("continue key is not valid: it was not made by this API") from e
    return rev, (namespace, name)
