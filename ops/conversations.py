"""Conversations with a Kubernetes API server: recorded whole from a real one, and replayed against ours.

    python -m ops.conversations record FILE... --server URL --token TOKEN    # writes the answers into the files
    python -m ops.conversations check  FILE... --server URL --token TOKEN    # prints what differs; exit status 1 if any

A file is ``{"server": VERSION, "cases": [{"case": NAME, "steps": [...], "answers": [...]}]}``.  A case's steps run in
order in a namespace of its own, ``{ns}``.  A step::

    {"do": "GET|POST|PUT|PATCH|DELETE|WATCH", "path": "/api/v1/...", "type": content type, "accept": ...,
     "body": object or string, "save": {"rv": "metadata.resourceVersion"},   # {rv} in later paths and bodies
     "count": 3, "seconds": 5,                       # WATCH: until so many events, at most so long
     "send": {"Impersonate-User": "x"},              # more headers; {"Authorization": ""} sends none
     "headers": ["Warning"],                         # of the answer, recorded with it
     "until": {"metadata.phase": "Bound"}, "within": 10,  # asked again until this is so
     "ignore": ["metadata.managedFields", "items[*].spec.clusterIP"]}  # left out of the comparison

A case with ``"hooks"`` (see ops/webhook_double.py) has a webhook at ``{hook}``, with the authority ``{bundle}``; its step
``{"do": "HEARD"}`` is what that webhook was asked since the last such step.  ``{"do": "PAUSE"}`` waits, where a server sees
what it was configured with only after a moment.

An answer is ``{"code": HTTP status, "body": JSON or text, "headers": {name: [values]}}``, *the whole of it*, with what
differs from run to run made equal: UIDs, times, resource versions, generated names, continue tokens, ages in
tables, the order of managedFields, and the namespace's name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import ssl
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from ops import webhook_double

PATIENCE_S = 30  # for one answer
WATCH_S = 5
PAUSE_S = 1.5  # a real server sees its own configuration with a delay
AGENT = "conversations/1"  # which managedFields name as the manager
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
OWNER = ("operation", "manager", "apiVersion", "subresource")
AGE = re.compile(r"\d+[smhd](?:\d+[smh])?")  # in a table's cells
VERSIONS = ("resourceVersion", "resourceVersionMatch")
NAMED = re.compile(r"\{(\w+)\}")
PART = re.compile(r"\[\*\]|\[\d+\]|(?:\\.|[^.\[\]])+")


def parts_of(path: str) -> list[str]:
    r"""``a.b[*].c\.d`` as its parts: ``a``, ``b``, ``[*]``, ``c.d``."""
    return [part.replace("\\", "") for part in PART.findall(path)]


def dig(doc: Any, path: str) -> Any:
    """The value at a path, None where there is none."""
    for part in parts_of(path):
        if part.startswith("["):
            index = int(part[1:-1])
            doc = doc[index] if isinstance(doc, list) and index < len(doc) else None
        else:
            doc = doc.get(part) if isinstance(doc, dict) else None
    return doc


def without(doc: Any, parts: list[str]) -> Any:
    """The document without what is at the path."""
    if not parts or doc is None:
        return doc
    head, rest = parts[0], parts[1:]
    if isinstance(doc, list):
        chosen = range(len(doc)) if head == "[*]" else [int(head[1:-1])] if head.startswith("[") else []
        return [without(item, rest) if rest and i in chosen else item for i, item in enumerate(doc)]
    if isinstance(doc, dict) and head in doc:
        kept = {key: value for key, value in doc.items() if key != head}
        return {**kept, head: without(doc[head], rest)} if rest else kept
    return doc


def fill(value: Any, names: dict[str, Any]) -> Any:
    """``{name}`` in every string, replaced by what was saved under that name."""
    if isinstance(value, str):
        return NAMED.sub(lambda m: str(names.get(m[1], m[0])), value)
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    if isinstance(value, dict):
        return {fill(key, names): fill(item, names) for key, item in value.items()}
    return value


def evened(value: Any, names: dict[str, Any]) -> Any:
    """An answer in the form in which two runs of it are equal."""
    if isinstance(value, str):
        text = value.replace(names["ns"], "{ns}")
        for name in [n for n in ("hook", "bundle") if n in names]:
            text = text.replace(names[name], f"{{{name}}}")
        return TIME.sub("<time>", UUID.sub("<uid>", text))
    if isinstance(value, list):
        return [evened(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    out = {key: evened(item, names) for key, item in value.items()}
    if isinstance(out.get("cells"), list):
        out["cells"] = ["<age>" if isinstance(c, str) and AGE.fullmatch(c) else c for c in out["cells"]]
    for key in VERSIONS:
        if out.get(key) not in (None, "", "0"):
            out[key] = "<version>"
    owners = out.get("managedFields")
    if isinstance(owners, list):  # sorted by seconds, which two writes may share or not
        out["managedFields"] = sorted(
            owners, key=lambda e: [str(e.get(k, "")) for k in OWNER] if isinstance(e, dict) else []
        )
    if out.get("continue"):
        out["continue"] = "<continue>"
    prefix = out.get("generateName")
    if isinstance(prefix, str) and prefix and str(out.get("name", "")).startswith(prefix):
        out["name"] = f"{prefix}<generated>"
    return out


def anonymous(heard: Any) -> Any:
    """A review without who asked, and without a generated name: others on every server."""
    request = heard["review"].get("request", {})
    if "userInfo" in request:
        user = {key: value for key, value in request["userInfo"].items() if key not in ("username", "uid")}
        request = heard["review"]["request"] = {**request, "userInfo": user}
        prefix = ((request.get("object") or {}).get("metadata") or {}).get("generateName")
        if prefix and "name" in request:
            request["name"] = f"{prefix}<generated>"
    return heard


def differences(want: Any, got: Any, where: str = "") -> Iterator[str]:
    """Each place where two documents differ: its path, what was recorded, what came."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in [*want, *(key for key in got if key not in want)]:
            below = f"{where}.{key}" if where else key
            if key not in got:
                yield f"{below}: recorded {short(want[key])}, absent here"
            elif key not in want:
                yield f"{below}: not recorded, here {short(got[key])}"
            else:
                yield from differences(want[key], got[key], below)
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for i, (one, other) in enumerate(zip(want, got, strict=True)):
            yield from differences(one, other, f"{where}[{i}]")
    elif want != got or type(want) is not type(got):
        yield f"{where or 'answer'}: recorded {short(want)}, here {short(got)}"


def short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 600 else f"{text[:600]}..."


class Server:
    """An API server that is asked one thing at a time."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session, self._url, self._token = session, url.rstrip("/"), token
        self.pause_s = 0.0

    async def ask(self, step: dict[str, Any]) -> dict[str, Any]:
        """One step's answer, as it came."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": step.get("accept", "application/json")}
        headers["User-Agent"] = AGENT
        data: bytes | None = None
        if "body" in step:
            body = step["body"]
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            headers["Content-Type"] = step.get("type", "application/json")
        headers = {name: value for name, value in {**headers, **step.get("send", {})}.items() if value}
        watching = step["do"] == "WATCH"
        async with self._session.request(
            "GET" if watching else step["do"], self._url + step["path"], data=data, headers=headers
        ) as answer:
            if watching and answer.status == 200:
                return {"code": 200, "body": {"events": await self._events(answer, step)}}
            raw = await answer.read()
            text = raw.decode("utf8", "backslashreplace")
            told = {name: answer.headers.getall(name, []) for name in step.get("headers", ())}
        whole = {"code": answer.status, "body": text, **({"headers": told} if told else {})}
        try:
            return {**whole, "body": json.loads(text)}
        except ValueError:
            return whole

    @staticmethod
    async def _events(answer: aiohttp.ClientResponse, step: dict[str, Any]) -> list[Any]:
        events: list[Any] = []
        try:
            async with asyncio.timeout(step.get("seconds", WATCH_S)):
                while len(events) < step.get("count", 100):
                    line = await answer.content.readline()
                    if not line:
                        break
                    events.append(json.loads(line))
        except TimeoutError:
            pass
        return events

    async def converse(self, case: dict[str, Any]) -> list[dict[str, Any]]:
        """The answers to a case's steps, evened."""
        if "hooks" not in case:
            return await self._converse(case, None)
        async with webhook_double.running() as double:
            return await self._converse(case, double)

    async def _converse(self, case: dict[str, Any], double: webhook_double.Double | None) -> list[dict[str, Any]]:
        names: dict[str, Any] = {"ns": f"c-{uuid.uuid4().hex[:8]}"}
        if double is not None:
            names |= {"hook": double.url, "bundle": double.bundle}
            double.hooks = case["hooks"]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names["ns"]}}
        await self.ask({"do": "POST", "path": "/api/v1/namespaces", "body": namespace})
        try:
            return [await self._step(step, names, double) for step in case["steps"]]
        finally:
            await self.ask({"do": "DELETE", "path": f"/api/v1/namespaces/{names['ns']}"})

    async def _step(
        self, step: dict[str, Any], names: dict[str, Any], double: webhook_double.Double | None
    ) -> dict[str, Any]:
        if step["do"] == "PAUSE":  # until what was written is seen by the server's own informers
            await asyncio.sleep(self.pause_s)
            return {"code": 200, "body": {}}
        if step["do"] == "HEARD" and double is not None:
            heard, double.heard = double.heard, []
            return self._even(step, {"code": 200, "body": [anonymous(h) for h in heard]}, names)
        filled = {**step, **fill({key: step[key] for key in ("path", "body", "send") if key in step}, names)}
        clock = asyncio.get_running_loop().time
        end = clock() + step.get("within", PATIENCE_S if "until" in step else 0)
        answer = await self.ask(filled)
        while any(dig(answer["body"], path) != want for path, want in step.get("until", {}).items()) and clock() < end:
            await asyncio.sleep(0.1)
            answer = await self.ask(filled)
        for name, path in step.get("save", {}).items():
            names[name] = dig(answer["body"], path)
        return self._even(step, answer, names)

    @staticmethod
    def _even(step: dict[str, Any], answer: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
        even = {**answer, "body": evened(answer["body"], names)}
        if "headers" in even:
            even["headers"] = evened(even["headers"], names)
        for path in step.get("ignore", ()):
            even["body"] = without(even["body"], parts_of(path))
        return even


def session(limit_s: float = PATIENCE_S) -> aiohttp.ClientSession:
    """A client for any of the servers compared; whose certificate it is doesn't matter here."""
    lax = ssl.create_default_context()
    lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
    timeout = aiohttp.ClientTimeout(total=limit_s)
    return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(ssl=lax), auto_decompress=True)


def disagreements(case: dict[str, Any], answers: list[dict[str, Any]]) -> list[str]:
    """What differs from the recorded answers, a line each."""
    out = []
    for i, (step, want, got) in enumerate(zip(case["steps"], case["answers"], answers, strict=True)):
        out += [f"step {i} {step['do']} {step.get('path', '')}: {line}" for line in differences(want, got)]
    return out


async def record(server: Server, files: list[Path], version: str) -> int:
    for file in files:
        doc = json.loads(file.read_text())
        for case in doc["cases"]:
            case["answers"] = await server.converse(case)
        file.write_text(written({"server": version or doc.get("server", ""), "cases": doc["cases"]}))
    return 0


def written(doc: dict[str, Any]) -> str:
    """A file of conversations as it is kept: a case's steps and answers a line each."""
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    lines = [f'{{"server":{json.dumps(doc["server"])},"cases":[']
    for n, case in enumerate(doc["cases"]):
        head = {key: case[key] for key in ("case", "hooks") if key in case}
        opened = json.dumps(head, **compact)[:-1]  # type: ignore[arg-type]
        lines.append(f'{"," if n else ""}{opened},"steps":[')
        lines.append(",\n".join(json.dumps(step, **compact) for step in case["steps"]))  # type: ignore[arg-type]
        lines.append('],"answers":[')
        lines.append(",\n".join(json.dumps(one, **compact) for one in case.get("answers", ())))  # type: ignore[arg-type]
        lines.append("]}")
    return "\n".join([*lines, "]}"]) + "\n"


async def check(server: Server, files: list[Path], only: str) -> int:
    failed = total = 0
    for file in files:
        for case in json.loads(file.read_text())["cases"]:
            if only not in case["case"]:
                continue
            total += 1
            lines = disagreements(case, await server.converse(case))
            failed += bool(lines)
            if lines:
                print(f"{file.name}: {case['case']}", *lines, sep="\n  ")
    print(f"{total - failed} of {total} conversations agree")
    return min(1, failed)


async def run(args: argparse.Namespace) -> int:
    async with session() as client:
        server = Server(client, args.server, args.token)
        if args.do == "record":
            version = (await server.ask({"do": "GET", "path": "/version"}))["body"]["gitVersion"]
            server.pause_s = PAUSE_S
            return await record(server, args.files, version)
        server.pause_s = PAUSE_S
        return await check(server, args.files, args.only)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("do", choices=("record", "check"))
    p.add_argument("files", nargs="+", type=Path)
    p.add_argument("--server", required=True)
    p.add_argument("--token", required=True)
    p.add_argument("--only", default="", help="check only cases with this text in their name")
    return asyncio.run(run(p.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
