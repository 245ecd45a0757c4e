"""Encoder replicas in processes of their own, as a run has them, that encode the same texts at the same time.

Only the encoding is timed: loading and a short warm-up come before a common start.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.encoders.base import EncoderSpec, PreparedTexts
from pipeline.encoders.registry import build_encoder
from pipeline.exceptions import ModelError, PipelineError

WARM_UP_TEXTS = 8
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    spec: EncoderSpec
    threads: int
    prepared: PreparedTexts


class ReplicaPool:
    """A number of waiting processes; each measurement uses as many as it asks for."""

    def __init__(self, count: int, device: str) -> None:
        self._context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        self._count, self._device = count, device
        self._workers: list[tuple[Any, Connection]] = []

    def __enter__(self) -> Self:
        """Start the processes; an interrupt ends this one, which then ends them: they inherit that it is blocked."""
        resource_tracker.ensure_running()  # starting it unblocks the signal
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(self._count):
                ours, theirs = self._context.Pipe()
                process = self._context.Process(target=_serve, args=(theirs, self._device), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them, also in the middle of a measurement."""
        for process, connection in self._workers:
            connection.close()
            if kind is not None:
                process.terminate()
            process.join(STOP_SECONDS)
            process.kill()

    def tokens_per_s(self, spec: EncoderSpec, prepared: PreparedTexts, *, replicas: int, threads: int) -> float:
        """Encode the texts once in each of so many replicas; all their tokens over the slowest one's seconds.

        Returns 0 where the device has not enough memory for it.

        Raises:
            ModelError: the weights cannot be loaded, or a process died.
        """
        used = self._workers[:replicas]
        for _, connection in used:
            connection.send(_Task(spec=spec, threads=threads, prepared=prepared))
        loaded = [worker for worker in used if self._answer(spec, worker) is not None]
        for _, connection in loaded:
            connection.send(len(loaded) == replicas)
        if len(loaded) < replicas:
            return 0.0
        seconds = [taken for worker in used if (taken := self._answer(spec, worker)) is not None]
        return replicas * int(prepared.n_tokens.sum()) / max(seconds) if len(seconds) == replicas else 0.0

    def _answer(self, spec: EncoderSpec, worker: tuple[Any, Connection]) -> float | None:
        """Return the seconds a replica says, None where it had not enough memory."""
        process, connection = worker
        try:
            answer = connection.recv()
        except (EOFError, ConnectionError) as error:
            process.join(STOP_SECONDS)
            reason = f"a replica ended with {process.exitcode}; was the memory enough? try fewer cluster.replicas"
            raise ModelError(spec.model, reason) from error
        if isinstance(answer, PipelineError):
            raise answer
        return None if answer is None else float(answer)


def _serve(connection: Connection, device: str) -> None:
    """Do one task after the other until the pool closes the connection."""
    import torch  # two seconds, which the parent does not need

    with suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            try:
                _encode(connection, task, device)
            except torch.OutOfMemoryError:
                connection.send(None)
            except PipelineError as error:
                connection.send(error)


def _encode(connection: Connection, task: _Task, device: str) -> None:
    before = _memory_errors(device)
    encoder = build_encoder(task.spec, device, task.threads)
    encoder.encode(task.prepared.select(np.arange(len(task.prepared.n_tokens)) < WARM_UP_TEXTS))
    connection.send(0.0)
    if not connection.recv():
        return
    started = time.perf_counter()
    encoder.encode(task.prepared)
    seconds = time.perf_counter() - started
    # an encoder that went on with smaller batches is not what was to be measured
    connection.send(seconds if _memory_errors(device) == before else None)


def _memory_errors(device: str) -> int:
    """Count how often this process asked its card for more memory than there was."""
    import torch

    return int(torch.cuda.memory_stats().get("num_ooms", 0)) if device == "cuda" else 0
