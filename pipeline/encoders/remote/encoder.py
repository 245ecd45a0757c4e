"""The encoding half of a hosted model: a unit's texts in requests, several at a time, until each is done or refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np
import pyarrow.compute as pc

from pipeline.config import RemoteConfig
from pipeline.encoders.base import Encoded, EncoderSpec, PreparedTexts, Progress, Vectors
from pipeline.encoders.remote.batches import cut, most_tokens
from pipeline.encoders.remote.client import Client
from pipeline.encoders.remote.failures import RefusedError
from pipeline.encoders.remote.replies import Expected, Reply
from pipeline.exceptions import ModelError
from pipeline.records import DeadCode

PROBE = "embatch"
"""A text that any model takes."""
TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Part:
    """Some texts' reply, or why the only one of them is refused."""

    rows: range
    outcome: Reply | RefusedError

    @property
    def tokens(self) -> int:
        """Tokens that were billed."""
        return 0 if isinstance(self.outcome, RefusedError) else self.outcome.tokens


class RemoteEncoder:
    """Sends texts to an API; keeps its connections, and what it knows of the rate limits, from unit to unit."""

    def __init__(self, spec: EncoderSpec, remote: RemoteConfig) -> None:
        """Read the key; nothing is sent yet.

        Raises:
            ConfigError: the key is not on this node.
        """
        self._spec, self._remote = spec, remote
        self._client = Client(remote, Expected(model=spec.model, reply_model=spec.revision, dimension=spec.dimension))

    def encode(self, prepared: PreparedTexts, progress: Progress | None = None) -> Vectors:
        """Encode to float32 [n, dimension], in the order given.

        Raises:
            ModelError: the API refuses one of the texts.
            PipelineError: as `encode_each`.
        """
        encoded = self.encode_each(prepared, progress)
        for row, (_, reason) in sorted(encoded.dead.items()):
            raise ModelError(self._spec.model, f"the API refuses text {row}: {reason}")
        return encoded.vectors

    def encode_each(self, prepared: PreparedTexts, progress: Progress | None = None) -> Encoded:
        """Encode what is accepted; progress is also told, with nothing new, while rate limits are waited for.

        Raises:
            ConfigError: the API refuses the key.
            ModelError: it refuses any text, or answers as another model.
            InterruptedRunError: it does not answer.
        """
        work = _Work(self._client, prepared)
        vectors = np.full((len(work.sizes), self._spec.dimension), np.nan, np.float32)
        dead: dict[int, tuple[DeadCode, str]] = {}
        tokens, waited_s = 0, self._client.pace.waited_s
        for part in self._settled(work, progress):
            if isinstance(part.outcome, RefusedError):
                dead[part.rows.start] = DeadCode.REFUSED, str(part.outcome)
            else:
                vectors[part.rows.start : part.rows.stop] = part.outcome.vectors
            tokens += part.tokens
        waited_s = self._client.pace.waited_s - waited_s
        return Encoded(vectors=vectors, tokens=tokens, dead=dead, waited_s=waited_s)

    def _settled(self, work: _Work, progress: Progress | None) -> Iterator[_Part]:
        """Send all requests, several at a time, and yield what became of them, as it comes."""
        done: SimpleQueue[Future[list[_Part]]] = SimpleQueue()
        pool = ThreadPoolExecutor(self._remote.concurrency, thread_name_prefix="request")
        try:
            open_requests = 0
            for rows in cut(work.sizes, self._remote.max_batch_items, self._remote.max_batch_tokens):
                pool.submit(work.settle, rows).add_done_callback(done.put)
                open_requests += 1
            while open_requests:
                try:
                    parts = done.get(timeout=TICK_SECONDS).result()
                except Empty:
                    if progress is not None and self._client.pace.waiting:
                        progress(0, 0)  # a sign of life
                    continue
                open_requests -= 1
                if progress is not None:
                    progress(sum(len(part.rows) for part in parts), sum(part.tokens for part in parts))
                yield from parts
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Work:
    """The texts of one unit; `sizes` are their bytes."""

    def __init__(self, client: Client, prepared: PreparedTexts) -> None:
        self._client = client
        self._texts = prepared.rows["text"]
        self.sizes: list[int] = pc.binary_length(self._texts).to_pylist()
        self._lock, self._takes_others = threading.Lock(), False

    def settle(self, rows: range) -> list[_Part]:
        """Ask for some rows' vectors; a request that is refused is halved until the texts that cause it are alone."""
        texts = self._texts.slice(rows.start, len(rows)).to_pylist()
        try:
            reply = self._client.embed(texts, sum(most_tokens(self.sizes[row]) for row in rows))
        except RefusedError as error:
            if len(rows) == 1:
                self._require_other_texts(error)
                return [_Part(rows, error)]
            middle = len(rows) // 2
            return self.settle(rows[:middle]) + self.settle(rows[middle:])
        return [_Part(rows, reply)]

    def _require_other_texts(self, error: RefusedError) -> None:
        """Make sure, once a unit, that it is the text: an API that refuses all of them would bury the whole corpus.

        Raises:
            ModelError: it refuses the probe too.
        """
        with self._lock:
            if not self._takes_others:
                try:
                    self._client.embed([PROBE], 1)
                except RefusedError as other:
                    reason = f"{self._client.url} refuses any text: {other} (a text of the corpus: {error})"
                    raise ModelError(self._client.model, reason) from None
                self._takes_others = True
