"""One request to the API, until it is answered.

A request that fails does not count: nothing of its reply is used, so asking again can neither lose nor repeat a text.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import stamina

from pipeline.config import RemoteConfig
from pipeline.encoders.remote.credentials import read_key
from pipeline.encoders.remote.failures import TransientError, read_failure, redacted
from pipeline.encoders.remote.pace import Pace
from pipeline.encoders.remote.replies import Expected, MalformedReplyError, Reply, parse
from pipeline.exceptions import ConfigError, InterruptedRunError, ModelError

logger = logging.getLogger(__name__)

ATTEMPTS, FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 10, 0.5, 30.0
"""Some two minutes of waiting in all, each wait with up to a second of jitter."""
DELAYS_IN_A_ROW = 100
"""Of one request, by a rate limit that says how long to wait and is not kept then."""


class Client:
    """Connections to one API for one model; may be used by several threads."""

    def __init__(self, remote: RemoteConfig, expected: Expected) -> None:
        """Read the key; nothing is sent yet.

        Raises:
            ConfigError: the key is not on this node, or the address is none.
        """
        self.url, self.model = f"{remote.base_url}/embeddings", expected.model
        self.pace = Pace()
        self._remote, self._expected = remote, expected
        self._key = read_key(remote)
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise ConfigError("encoder.remote.base_url", f"{remote.base_url!r} is no address: {error}") from None
        self._http = httpx2.Client(
            headers=headers,
            timeout=remote.timeout_seconds,
            limits=httpx2.Limits(max_connections=remote.concurrency, max_keepalive_connections=remote.concurrency),
            follow_redirects=False,  # the key is for this address alone
        )

    def embed(self, texts: Sequence[str], tokens: int) -> Reply:
        """Ask for the vectors of some texts, of about so many tokens together.

        Raises:
            RefusedError: the API refuses the request as it is.
            ConfigError: it refuses the key.
            ModelError: it has no such model, or answers as another one.
            InterruptedRunError: it failed again and again.
        """
        body = self._body(texts)
        retrying = stamina.retry_context(
            on=(TransientError, MalformedReplyError),
            attempts=ATTEMPTS,
            timeout=None,
            wait_initial=FIRST_WAIT_SECONDS,
            wait_max=LONGEST_WAIT_SECONDS,
        )
        try:
            for attempt in retrying:
                with attempt:
                    return parse(self._content(body, tokens), len(texts), self._expected)
        except TransientError as error:
            raise InterruptedRunError(f"{self.url} failed {ATTEMPTS} times in a row, at last: {error}") from None
        except MalformedReplyError as error:
            reason = f"{self.url} gave {ATTEMPTS} replies in a row that cannot be used, at last: {error}"
            raise ModelError(self.model, reason) from None
        raise AssertionError  # the loop returns or raises

    def _body(self, texts: Sequence[str]) -> bytes:
        request: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": "base64"}
        if self._remote.dimensions is not None:
            request["dimensions"] = self._remote.dimensions
        return json.dumps(request, ensure_ascii=False).encode()

    def _content(self, body: bytes, tokens: int) -> bytes:
        """Return the body of a good answer; where a rate limit says how long, wait and ask again."""
        for _ in range(DELAYS_IN_A_ROW):
            status, headers, content = self._send(body, tokens)
            if status == httpx2.codes.OK:
                return content
            failure = read_failure(self.url, status, content, self._key)
            if not (failure.puts_off and self.pace.pause(headers)):
                raise failure.as_error(self._remote, self.model)
            logger.info("%s puts requests off: %d %s", self.url, status, failure.said)
        raise InterruptedRunError(
            f"{self.url} put a request off {DELAYS_IN_A_ROW} times in a row; where a minute allows fewer tokens than a "
            "request has, lower encoder.remote.max_batch_tokens"
        )

    def _send(self, body: bytes, tokens: int) -> tuple[int, httpx2.Headers, bytes]:
        self.pace.enter(tokens)
        headers = httpx2.Headers()
        give_up = time.monotonic() + self._remote.timeout_seconds
        content = bytearray()
        try:
            with self._http.stream("POST", self.url, content=body) as response:
                headers = response.headers
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > give_up:  # the client's own timeout is for the next byte
                        raise TransientError(f"no whole reply within {self._remote.timeout_seconds:g} s")
                return response.status_code, headers, bytes(content)
        except httpx2.RequestError as error:
            raise TransientError(redacted(f"{type(error).__name__}: {error}", self._key)) from None
        finally:
            self.pace.leave(tokens, headers)
