"""`./just fuzz [--seed N] [--requests N]`: hostile and careless requests against the API in this process.

Whatever is sent, the answer is what it is in Kubernetes: never a 5xx that isn't the real server's, never anything but a
Status when it is refused, never slow, and what was stored can be read in every form.  A finding is printed with its seed and
number; the same seed sends the same requests again.  Memory may not grow beyond a bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import structlog

from bus.kube import memory, registry, server, upkeep
from bus.kube.auth import users
from bus.kube.storage import Origin
from ops.fuzz import requests

REQUESTS = 5_000
SLOW_S = 10.0  # on a machine that does other things too
GROWTH_MAX_MB = 300
FINDINGS_MAX = 20
READ_EVERY = 50  # requests, then everything that is stored is read in every form
# What the real server, too, has no better code for.
REAL_500 = (b"failed to create typed patch object", b"resourceVersion: Invalid value: ", b"strconv.ParseUint: parsing ")
FORMS = (
    "application/json",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
)


def rss_mb() -> float:
    """The most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def wrong(request: requests.Request, code: int, body: bytes, seconds: float) -> str:
    """What is wrong with an answer, "" for nothing."""
    if code >= 500 and not any(b'"message":"' + words in body for words in REAL_500):
        return f"answered {code}"
    if seconds > SLOW_S:
        return f"took {seconds:.1f} s"
    if code < 400 or request.method in ("HEAD", "TRACE", "OPTIONS") or (code, body) == (404, b"404 page not found\n"):
        return ""
    try:
        status: Any = json.loads(body)
    except ValueError:
        return f"a {code} that is no Status"
    if not isinstance(status, dict) or status.get("kind") != "Status" or status.get("code") != code:
        return f"a {code} that is no Status"
    return "a traceback" if "Traceback" in str(status.get("message")) else ""


async def run(seed: int, count: int, report: Any = print) -> list[str]:
    """Findings; what was answered how often is reported."""
    rng = random.Random(seed)
    storage = memory.MemoryStorage()
    api = registry.Registry(storage)
    await upkeep.bootstrap(api, Origin("fuzz"))
    admin = users.authenticated("fuzz", (users.MASTERS,))
    running = await server.serve(server.make_app(api, authenticate=lambda _: admin), "127.0.0.1", 0)
    url, codes, findings = f"http://127.0.0.1:{running.port}", Counter[int](), list[str]()
    start_mb = rss_mb()
    try:
        async with aiohttp.ClientSession() as client:
            for number in range(count):
                served = [r for r in api.catalog.all() if r.preferred]
                request = requests.make(rng, served)
                if problem := await _send(client, url, request, codes):
                    findings.append(f"seed {seed} request {number}: {problem}: {request}")
                if number % READ_EVERY == READ_EVERY - 1:
                    findings += [f"seed {seed} after {number}: {p}" for p in await _read_all(client, url, api)]
                if len(findings) >= FINDINGS_MAX:
                    break
    finally:
        await running.stop()
    grown = rss_mb() - start_mb
    if grown > GROWTH_MAX_MB:
        findings.append(f"seed {seed}: memory grew by {grown:.0f} MB, more than {GROWTH_MAX_MB}")
    said = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
    report(f"seed {seed}: {sum(codes.values())} requests ({said}), memory grew by {grown:.0f} MB")
    return findings


async def _send(client: aiohttp.ClientSession, url: str, request: requests.Request, codes: Counter[int]) -> str:
    began = time.monotonic()
    try:
        async with client.request(
            request.method, url + request.path, data=request.body, headers=request.headers, timeout=aiohttp.ClientTimeout(60)
        ) as r:
            body = await r.read()
            codes[r.status] += 1
            return wrong(request, r.status, body, time.monotonic() - began)
    except (aiohttp.ClientError, TimeoutError) as e:
        return f"no answer: {type(e).__name__} {e}"


async def _read_all(client: aiohttp.ClientSession, url: str, api: registry.Registry) -> list[str]:
    out = []
    for res in api.catalog.all():
        if not res.stored or not api.reader.list(*res.place):
            continue
        for version in res.preferred:
            path = f"/apis/{res.group}/{version}/{res.resource}" if res.group else f"/api/{version}/{res.resource}"
            for form in FORMS:
                async with client.get(url + path, headers={"Accept": form}) as r:
                    body = await r.read()
                    if r.status != 200:
                        out.append(f"GET {path} as {form} answered {r.status}: {body[:300]!r}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(prog="just fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first run; without it a new one")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    args = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    first = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    failed = False
    for seed in range(first, first + args.runs):
        for finding in asyncio.run(run(seed, args.requests)):
            failed = True
            print(finding)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
