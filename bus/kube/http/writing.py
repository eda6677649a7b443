"""Create, update, patch, delete: from a request to the registry, and back."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bus.kube import decoding, deletion, errors
from bus.kube.auth import requests
from bus.kube.catalog import Resource
from bus.kube.deletion import Deleted
from bus.kube.http import answers, bodies, reading
from bus.kube.http.context import Context
from bus.kube.kinds import strategy
from bus.kube.patches import choose
from bus.kube.storage import Object


async def create(ctx: Context) -> web.Response:
    target = ctx.target
    how, body = ctx.write(), await bodies.read_object(ctx.request, ctx.target.resource.kind)
    decoding.require_version(body, target.resource, target.version)
    obj = await ctx.server.registry.create(
        target.resource.group,
        target.resource.resource,
        target.namespace,
        body,
        how=how,
        version=target.version.name,
        name=target.name,
        subresource=target.subresource,
    )
    return reading.answer_object(ctx, obj, 201, how.warnings)


async def review(ctx: Context) -> web.Response:
    """A kind that is asked and never stored; a Binding says which pod it binds."""
    if (ctx.target.resource.group, ctx.target.resource.resource) == ("", "bindings"):
        return await _bind(ctx)
    target, how, reviews = ctx.target, ctx.write(), ctx.server.reviews
    if reviews is None:
        raise errors.no_such_path()
    body = await bodies.read_object(ctx.request, ctx.target.resource.kind)
    asked = decoding.read(body, target.resource, target.version, validation=how.validation, warnings=how.warnings)
    return reading.answer_object(ctx, reviews.answer(ctx.user, target, asked), 201, how.warnings)


async def _bind(ctx: Context) -> web.Response:
    how, body = ctx.write(), await bodies.read_object(ctx.request, ctx.target.resource.kind)
    meta = body.get("metadata") if isinstance(body, dict) else None
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(name, str) or not name:
        raise errors.invalid("", "Binding", "", [errors.required("metadata.name", "name or generateName is required")])
    done = await ctx.server.registry.create(
        "", "pods", ctx.target.namespace, body, how=how, name=name, subresource="binding"
    )
    return reading.answer_object(ctx, done, 201, how.warnings)


async def update(ctx: Context) -> web.Response:
    target = ctx.target
    how, body = ctx.write(), await bodies.read_object(ctx.request, ctx.target.resource.kind)
    rules, existed = strategy(target.resource), ctx.server.registry.reader.get(target.key) is not None
    made = rules.create_on_update and not target.subresource and not existed
    if made:
        ctx.server.require(requests.of_resource(ctx.user, "POST", ctx.address, {}))
    obj = await ctx.server.registry.update(
        target.resource.group,
        target.resource.resource,
        target.namespace,
        target.name,
        body,
        how=how,
        version=target.version.name,
        subresource=target.subresource,
    )
    return reading.answer_object(ctx, obj, 201 if made else 200, how.warnings)


async def patch(ctx: Context) -> web.Response:
    target, kind = ctx.target, bodies.content_type(ctx.request)
    if kind not in choose.KINDS:
        raise errors.no_such_patch()
    applied = kind == "application/apply-patch+yaml"
    if applied and not ctx.query.get("fieldManager"):
        cause = errors.required("fieldManager", "is required for apply patch")
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
    if not applied and "force" in ctx.query:
        cause = errors.not_permitted("force", "may not be specified for non-apply patch")
        raise errors.invalid("meta.k8s.io", "PatchOptions", "", [cause])
    how, registry = ctx.write(), ctx.server.registry
    body = await bodies.read_patch(ctx.request, kind)
    existed = registry.reader.get(target.key) is not None
    if not existed and applied:  # it is going to be a create
        ctx.server.require(requests.of_resource(ctx.user, "POST", ctx.address, {}))
    obj = await registry.patch(
        target.resource.group,
        target.resource.resource,
        target.namespace,
        target.name,
        body,
        kind=choose.KINDS[kind],
        how=how,
        version=target.version.name,
        subresource=target.subresource,
    )
    return reading.answer_object(ctx, obj, 200 if existed else 201, how.warnings)


async def _options(ctx: Context) -> deletion.DeleteOptions:
    """From the body, or from the query as older clients send them."""
    raw = await bodies.read_options(ctx.request)
    query: dict[str, Any] = {}
    if "gracePeriodSeconds" in ctx.query:
        query["gracePeriodSeconds"] = ctx.number("gracePeriodSeconds", minimum=-1)
    if "propagationPolicy" in ctx.query:
        query["propagationPolicy"] = ctx.query["propagationPolicy"]
    if "orphanDependents" in ctx.query:
        query["orphanDependents"] = ctx.flag("orphanDependents")
    if raw is None:
        return deletion.options(query)
    if not isinstance(raw, dict):
        raise errors.bad_request("couldn't get version/kind; json parse error: " + bodies.no_object(raw))
    return deletion.options({**query, **raw})


async def delete(ctx: Context) -> web.Response:
    target, how, options = ctx.target, ctx.write(), await _options(ctx)
    done = await ctx.server.registry.delete(
        target.resource.group,
        target.resource.resource,
        target.namespace,
        target.name,
        how=how,
        options=options,
        version=target.version.name,
    )
    return reading.answer_object(ctx, _told(target.resource, done))


def _told(res: Resource, done: Deleted) -> Object:
    """The object while it stays (and for some kinds always), else a Status."""
    if not done.gone or strategy(res).returns_deleted:
        return done.object
    meta = done.object["metadata"]
    details = {"name": meta["name"], **({"group": res.group} if res.group else {}), "kind": res.resource, "uid": meta["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def delete_collection(ctx: Context) -> web.Response:
    target, how, options = ctx.target, ctx.write(), await _options(ctx)
    res = target.resource
    ctx.number("limit")  # neither means anything here, but each must be one
    ctx.revision(listed=True)
    items = await ctx.server.registry.delete_collection(
        res.group,
        res.resource,
        ctx.address.namespace if res.namespaced else None,
        how=how,
        options=options,
        labels=ctx.query.get("labelSelector", ""),
        fields=ctx.query.get("fieldSelector", ""),
        version=target.version.name,
    )
    more = {"continue": ""} if res.custom else {}  # as lists of custom resources have it
    if not res.custom:
        items = [{k: v for k, v in item.items() if k not in ("apiVersion", "kind")} for item in items]
    meta = {**more, "resourceVersion": str(ctx.server.registry.reader.revision())}
    head = {"kind": res.list_kind, "apiVersion": res.api_version(target.version.name)}
    return answers.respond({**head, "metadata": meta, "items": items}, 200)
