"""An HTTP proxy that breaks S3 traffic on purpose: rules say which request goes wrong, and how.

Requests are forwarded unchanged, so signatures stay valid, and the whole reply is read before anything is
broken: a reply that is lost or cut never hides an operation that did not happen.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

Action = Literal["status", "drop_reply", "truncate", "short", "stall", "hold", "strip", "omit", "anonymous_412"]
"""What happens to a request that a rule picks.

status         it is answered with a status and never forwarded
drop_reply     it is applied, then the connection is closed
truncate       half the body comes, then the connection is closed
short          half the body comes, and Content-Length says so
stall          ten bytes of the body come, then nothing until the client gives up
hold           the connection is closed; it is applied when `release` is called
strip          it is forwarded without If-None-Match
omit           a listing comes without the keys that match
anonymous_412  a 412 comes without the element that says which condition failed (Ceph RGW)
"""

T = TypeVar("T")

_FORWARDED_NOT = {"transfer-encoding", "connection", "expect"}
_RETURNED_NOT = {"transfer-encoding", "connection", "content-length", "server", "date"}
_CODES = {
    401: "Unauthorized",
    403: "AccessDenied",
    409: "ConditionalRequestConflict",
    500: "InternalError",
    503: "SlowDown",
}
_ENTRY = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_LISTED_KEY = re.compile(rb"<Key>(.*?)</Key>")


@dataclass(slots=True, kw_only=True)
class Fault:
    """A rule. `operation` is a method, or LIST; `key` is searched for as a regular expression."""

    action: Action
    operation: str
    key: str
    after: int
    times: float
    status: int
    seen: int = 0
    fired: int = 0
    held: list[Request] = field(default_factory=list)

    def fires(self, request: Request) -> bool:
        """Tell whether this request is to be broken, and count it."""
        if request.operation != self.operation:
            return False
        if self.action != "omit" and not re.search(self.key, request.key):
            return False
        self.seen += 1
        if self.seen <= self.after or self.fired >= self.times:
            return False
        self.fired += 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came."""

    operation: str
    method: str
    path: str
    bucket: str
    key: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A line of the log; `status` is the store's own answer, or None where it never got the request."""

    operation: str
    bucket: str
    key: str
    if_none_match: str | None
    status: int | None
    etag: str | None


class FaultProxy:
    """Sits before an S3 server at `upstream`, in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self._faults: list[Fault] = []
        self._log: list[Exchange] = []
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.url = self._run(self._start())

    def inject(
        self,
        action: Action,
        operation: str,
        key: str = "",
        *,
        after: int = 0,
        times: float = 1,
        status: int = 503,
    ) -> Fault:
        """Break the requests that match, `times` of them, once `after` of them have passed."""
        fault = Fault(action=action, operation=operation, key=key, after=after, times=times, status=status)
        self._faults.append(fault)
        return fault

    def release(self, fault: Fault) -> list[int]:
        """Apply what a `hold` kept back; return the statuses the store gave."""
        held, fault.held = fault.held, []
        return [self._run(self._forward(request))[0] for request in held]

    def clear(self) -> list[Fault]:
        """Drop all rules and the log; return the rules that never fired."""
        idle = [fault for fault in self._faults if not fault.fired]
        self._faults, self._log = [], []
        return idle

    def log(self, operation: str | None = None, key: str = "", *, bucket: str | None = None) -> list[Exchange]:
        """Return the exchanges so far that match."""
        return [
            line
            for line in list(self._log)
            if operation in (None, line.operation) and bucket in (None, line.bucket) and re.search(key, line.key)
        ]

    def close(self) -> None:
        """Stop serving."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> str:
        skipped = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
        self._session = aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=skipped)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0]
        return f"http://{host}:{port}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = await _parse(incoming)
        fault = next((fault for fault in self._faults if fault.fires(request)), None)
        action = fault.action if fault else None
        if fault and action == "status":
            self._note(request, None, {})
            return _refusal(fault.status)
        if fault and action == "hold":
            fault.held.append(request)
            return _hang_up(incoming)
        if action == "strip":
            kept = [(name, value) for name, value in request.headers if name.lower() != "if-none-match"]
            status, headers, body = await self._forward(request, kept)
        else:
            status, headers, body = await self._forward(request)
        if fault is None or action == "strip":
            return _reply(incoming, status, headers, body)
        return await _broken(incoming, fault, status, headers, body)

    async def _forward(
        self, request: Request, headers: list[tuple[str, str]] | None = None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        url = URL(self.upstream + request.path, encoded=True)
        sent = request.headers if headers is None else headers
        # the server behind checks a condition and puts without holding a lock
        async with (
            self._locks[f"{request.bucket}/{request.key}"],
            self._session.request(
                request.method, url, headers=sent, data=request.body, allow_redirects=False
            ) as answer,
        ):
            body = await answer.read()
        self._note(request, answer.status, answer.headers)
        return answer.status, list(answer.headers.items()), body

    def _note(self, request: Request, status: int | None, headers: Any) -> None:
        condition = next((value for name, value in request.headers if name.lower() == "if-none-match"), None)
        self._log.append(
            Exchange(
                operation=request.operation,
                bucket=request.bucket,
                key=request.key,
                if_none_match=condition,
                status=status,
                etag=headers.get("ETag"),
            )
        )


async def _parse(incoming: web.Request) -> Request:
    bucket, _, key = incoming.path.lstrip("/").partition("/")
    listing = incoming.method == "GET" and not key
    return Request(
        operation="LIST" if listing else incoming.method,
        method=incoming.method,
        path=incoming.raw_path,
        bucket=bucket,
        key=incoming.query.get("prefix", "") if listing else key,
        headers=[(name, value) for name, value in incoming.headers.items() if name.lower() not in _FORWARDED_NOT],
        body=await incoming.read(),
    )


def _reply(incoming: web.Request, status: int, headers: list[tuple[str, str]], body: bytes) -> web.Response:
    response = web.Response(status=status, body=None if incoming.method == "HEAD" else body)
    for name, value in headers:
        if name.lower() not in _RETURNED_NOT or (incoming.method == "HEAD" and name.lower() == "content-length"):
            response.headers[name] = value
    return response


def _refusal(status: int) -> web.Response:
    code = _CODES[status]
    text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _hang_up(incoming: web.Request) -> web.Response:
    if incoming.transport is not None:
        incoming.transport.abort()
    return web.Response()


async def _broken(
    incoming: web.Request, fault: Fault, status: int, headers: list[tuple[str, str]], body: bytes
) -> web.StreamResponse:
    if fault.action == "drop_reply":
        return _hang_up(incoming)
    if fault.action == "short":
        return _reply(incoming, status, headers, body[: len(body) // 2])
    if fault.action == "omit":
        return _reply(incoming, status, headers, _ENTRY.sub(lambda entry: _unless_named(entry, fault.key), body))
    if fault.action == "anonymous_412":
        return _reply(incoming, status, headers, re.sub(rb"<Condition>.*?</Condition>", b"", body))
    response = web.StreamResponse(status=status)
    for name, value in headers:
        if name.lower() not in _RETURNED_NOT:
            response.headers[name] = value
    response.content_length = len(body)
    await response.prepare(incoming)
    await response.write(body[:10] if fault.action == "stall" else body[: len(body) // 2])
    if fault.action == "stall":
        await _client_gave_up(incoming)
    return _hang_up(incoming)


def _unless_named(entry: re.Match[bytes], key: str) -> bytes:
    named = _LISTED_KEY.search(entry[0])
    return b"" if named and re.search(key, named[1].decode()) else entry[0]


async def _client_gave_up(incoming: web.Request) -> None:
    while incoming.transport is not None and not incoming.transport.is_closing():  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.05)
