"""An OpenAI-compatible embeddings server over `load_encoder`, and the ways in which one can fail.

It speaks the published format of `POST /v1/embeddings`: strings or lists of strings, `dimensions`, `encoding_format`
float or base64, the limits of 2,048 texts, 8,192 tokens a text and 300,000 a request, errors as objects, and the
headers of rate limits. Each text is encoded alone, so that its vector is a function of the text.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from pipeline.encoders.loading import LoadedEncoder, load_encoder

KEY = "sk-test-5up3rS3cretC4nary"
MODEL = "text-embedding-test"
MOST_TEXTS, MOST_TEXT_TOKENS, MOST_TOKENS = 2048, 8192, 300_000
FORBIDDEN = "unspeakable"
"""A text with this word is refused for its content."""

HARMLESS = (
    "429",
    "429 bare",
    "429 reset",
    "500",
    "503",
    "drop",
    "truncate",
    "cut json",
    "reorder",
    "lose",
    "double",
    "slow",
)
"""What a client must get over.

429          with Retry-After; `bare` without any header; `reset` with those of the rate limit only
500, 503     a server's error; 503 with Retry-After
drop         the work is done, and the connection is closed instead of a reply
truncate     half of the body comes, then the connection is closed
cut json     half of the body comes as if it were all
reorder      the vectors come in another order, with their right indices
lose         one vector is missing
double       one index stands twice
slow         a byte now and then, beyond any patience
"""


class RefusalError(Exception):
    """A request that gets an error object."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


@dataclass
class Faults:
    """A seeded schedule: `script` first, then with probability `rate` one of `kinds`."""

    rate: float = 0.0
    kinds: Sequence[str] = HARMLESS
    seed: int = 0
    script: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def next(self) -> str | None:
        if self.script:
            return self.script.pop(0)
        return self._draw.choice(self.kinds) if self._draw.random() < self.rate else None


@dataclass
class RateLimit:
    """A bucket of requests that fills up evenly: `size` of them in `full_in_s`."""

    size: int
    full_in_s: float
    left: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.at = float(self.size), time.monotonic()

    def take(self) -> tuple[bool, dict[str, str]]:
        now = time.monotonic()
        self.left = min(self.left + (now - self.at) * self.size / self.full_in_s, self.size)
        self.at = now
        there = self.left >= 1
        self.left -= there
        reset_ms = (self.size - self.left) * self.full_in_s / self.size * 1000
        told = {"limit": str(self.size), "remaining": str(int(self.left)), "reset": f"{reset_ms:.0f}ms"}
        return there, {f"x-ratelimit-{name}-requests": value for name, value in told.items()}


class EmbeddingsServer:
    """A server on a free port of this machine; `seen` counts what happened, `sizes` are the texts of each request."""

    def __init__(self, encoder: LoadedEncoder) -> None:
        self.encoder = encoder
        self.model, self.reply_model, self.key = MODEL, MODEL, KEY
        self.faults, self.limit = Faults(), None
        self.widen, self.floats_only = 0, False
        self.before: Callable[[list[str]], None] = lambda _: None
        self.seen: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.billed: Counter[str] = Counter()
        self.slow_s = 3.0
        self.lock = threading.Lock()
        self._encoding = threading.Lock()
        self._made: dict[str, tuple[np.ndarray, int]] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.embeddings = self
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def vector(self, text: str) -> np.ndarray:
        return self._encoded(text)[0]

    def tokens(self, text: str) -> int:
        return self._encoded(text)[1]

    def _encoded(self, text: str) -> tuple[np.ndarray, int]:
        with self._encoding:
            if text not in self._made:
                tokens = int(self.encoder._preparer.prepare([text]).n_tokens[0])
                self._made[text] = self.encoder.encode([text])[0], tokens
            return self._made[text]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to a request that is in order."""
        texts = request.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if request.get("model") != self.model:
            raise RefusalError(404, f"The model `{request.get('model')}` does not exist", "model_not_found")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise RefusalError(400, "'$.input' is invalid. Please check the API reference.")
        if len(texts) > MOST_TEXTS:
            raise RefusalError(400, f"'$.input' has {len(texts)} items, at most {MOST_TEXTS} are allowed")
        self.before(texts)
        if any(FORBIDDEN in text for text in texts):
            raise RefusalError(400, "The input was rejected for its content", "content_policy")
        counts = [self.tokens(text) for text in texts]
        if max(counts) > MOST_TEXT_TOKENS:
            raise RefusalError(400, f"This model's maximum context length is {MOST_TEXT_TOKENS} tokens")
        if sum(counts) > MOST_TOKENS:
            raise RefusalError(400, f"Requested {sum(counts)} tokens, max {MOST_TOKENS}", "max_tokens_per_request")
        vectors = [self._shaped(self.vector(text), request.get("dimensions")) for text in texts]
        encoding = "float" if self.floats_only else request.get("encoding_format")
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, encoding)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
        return {"object": "list", "data": data, "model": self.reply_model, "usage": usage}

    def _shaped(self, vector: np.ndarray, dimensions: int | None) -> np.ndarray:
        if dimensions is None:
            return np.concatenate([vector, np.ones(self.widen, np.float32)])
        if not 1 <= dimensions <= len(vector):
            raise RefusalError(400, f"Invalid value for 'dimensions': {dimensions}")
        cut = vector[:dimensions]
        return cut / np.linalg.norm(cut)


def _written(vector: np.ndarray, encoding: str | None) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]


_SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "reorder": lambda reply: reply["data"].reverse(),
    "lose": lambda reply: reply["data"].pop(),
    "double": lambda reply: reply["data"].append(reply["data"][0]),
    "twice": lambda reply: reply["data"][-1].update(index=0 if len(reply["data"]) > 1 else 7),
    "rename": lambda reply: reply.update(model="another-model"),
    "no usage": lambda reply: reply.pop("usage"),
    "no vector": lambda reply: reply["data"][0].update(embedding="=="),
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each reply would wait 40 ms between its head and its body

    def do_POST(self) -> None:
        server: EmbeddingsServer = self.server.embeddings
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with server.lock:
            server.seen["requests"] += 1
            fault = server.faults.next()
            server.seen[fault or "good"] += 1
        try:
            headers = self._admit(server, fault)
            reply = server.answer(json.loads(body))
        except RefusalError as refusal:
            error = {"message": refusal.message, "type": "invalid_request_error", "param": None, "code": refusal.code}
            self._write(refusal.status, json.dumps({"error": error}).encode(), refusal.headers)
            return
        with server.lock:
            server.sizes.append(len(reply["data"]))
        self._reply(server, fault, reply, headers)

    def _admit(self, server: EmbeddingsServer, fault: str | None) -> dict[str, str]:
        if self.path != "/v1/embeddings":
            raise RefusalError(404, f"no such path: {self.path}")
        if server.key is not None and self.headers["Authorization"] != f"Bearer {server.key}":
            raise RefusalError(401, f"Incorrect API key provided: {self.headers['Authorization']}", "invalid_api_key")
        refusals = {
            "429": RefusalError(429, "Rate limit reached", "rate_limit_exceeded", {"Retry-After": "0.05"}),
            "429 long": RefusalError(429, "Rate limit reached", "rate_limit_exceeded", {"Retry-After": "1.5"}),
            "429 bare": RefusalError(429, "Overloaded"),
            "429 reset": RefusalError(
                429, "Rate limit", None, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "40ms"}
            ),
            "quota": RefusalError(429, "You exceeded your current quota", "insufficient_quota", {"Retry-After": "1"}),
            "500": RefusalError(500, "The server had an error"),
            "503": RefusalError(503, "Overloaded", None, {"retry-after-ms": "30"}),
            "echo": RefusalError(400, f"cannot serve {self.headers['Authorization']}"),
            "refuse": RefusalError(400, "no"),
            "redirect": RefusalError(307, "elsewhere", None, {"Location": f"{server.url}/embeddings"}),
            "403": RefusalError(403, "You are not allowed to use this model"),
        }
        if fault in refusals:
            raise refusals[fault]
        if server.limit is None:
            return {}
        with server.lock:
            there, headers = server.limit.take()
        if not there:
            with server.lock:
                server.seen["over the limit"] += 1
            raise RefusalError(429, "Rate limit reached", "rate_limit_exceeded", headers)
        return headers

    def _reply(
        self, server: EmbeddingsServer, fault: str | None, reply: dict[str, Any], headers: dict[str, str]
    ) -> None:
        if fault in _SPOILT:
            _SPOILT[fault](reply)
        content = json.dumps(reply).encode()
        if fault == "cut json":
            content = content[: len(content) // 2]
        if fault == "drop":
            self.close_connection = True
        elif fault in ("truncate", "slow"):
            self._write_part(content, server.slow_s if fault == "slow" else 0.0)
        else:
            self._write(200, content, headers)

    def _write(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def _write_part(self, content: bytes, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.close_connection = True
        try:
            if not seconds:
                self.wfile.write(content[: len(content) // 2])
            until, sent = time.monotonic() + seconds, 0
            while time.monotonic() < until:
                self.wfile.write(content[sent : sent + 1])
                self.wfile.flush()
                sent += 1
                time.sleep(0.05)
        except OSError:
            pass  # the client had enough

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def serving(model: str = "hashing:16") -> Iterator[EmbeddingsServer]:
    """Hold a server over a model."""
    server = EmbeddingsServer(load_encoder(model, device="cpu", dtype="float32"))
    try:
        yield server
    finally:
        server.close()
