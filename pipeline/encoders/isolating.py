"""Find the texts that end the process that encodes them, in processes that may end, and encode all others.

A crash in native code takes the whole process along, and with it whatever else it holds. So the texts of a unit that
lost its worker are encoded in a process beside it, halved until those are found that end it even alone.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from pipeline.encoders.base import Encoded, EncoderSpec, PreparedTexts, encode_each
from pipeline.encoders.registry import build_encoder
from pipeline.exceptions import ModelError, PipelineError, from_json, to_json
from pipeline.records import DeadCode

MOST_ENDED = 40
"""Processes that may end for one unit: enough for two or three of thousands of texts."""
HOPELESS = 8
"""So many that end before the first does not: it is no matter of single texts."""

END_SECONDS = 30.0
"""For an idle process to give its device back."""

Rows = npt.NDArray[np.intp]


class ProcessEndedError(Exception):
    """The process ended while it encoded; the message says how."""


class NotIsolatedError(Exception):
    """No single texts are to blame; the message says why not."""


class SpareProcess:
    """An encoder in a process of its own; after each that ended, the next call starts another."""

    def __init__(self, spec: EncoderSpec, device: str, threads: int) -> None:
        self._spec, self._device, self._threads = spec, device, threads
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def encode(self, prepared: PreparedTexts) -> Encoded:
        """Encode there.

        Raises:
            ProcessEndedError: it ended.
            ModelError: no process could be started, for want of memory beside the one here perhaps.
            PipelineError: as the encoder raises it.
        """
        answer = self._ask(self._pipe or self._start(), prepared)
        if isinstance(answer, str):
            raise from_json(answer)
        return answer

    def close(self) -> str:
        """End the process, and say how it ended."""
        if self._process is None or self._pipe is None:
            return ""
        self._pipe.close()  # ends its loop
        self._process.join(END_SECONDS)
        self._process.kill()  # no harm where it ended
        self._process.join()
        code, self._process, self._pipe = self._process.exitcode, None, None
        return f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"

    def _start(self) -> Connection:
        if self._device == "cuda":
            import torch

            torch.cuda.empty_cache()  # what this process keeps for its next batch, the other one needs for its weights
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._spec, self._device, self._threads), daemon=True
        )
        self._process.start()
        self._pipe = ours
        theirs.close()  # or nobody would notice that the process, which holds the other copy, is gone
        try:
            failure = ours.recv()
        except EOFError:
            reason = f"a process beside the replica, to find the texts that end it, ended {self.close()} at its start"
            raise ModelError(self._spec.model, reason) from None
        if failure is not None:
            self.close()
            raise from_json(failure)
        return ours

    def _ask(self, pipe: Connection, prepared: PreparedTexts) -> Encoded | str:
        try:
            pipe.send(prepared)
            answer: Encoded | str = pipe.recv()
        except (EOFError, OSError):
            raise ProcessEndedError(self.close()) from None
        return answer


def _serve(pipe: Connection, spec: EncoderSpec, device: str, threads: int) -> None:
    """Load, say None or the error, then answer until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C must not look like a text's doing
    try:
        encoder = build_encoder(spec, device, threads)
    except PipelineError as error:
        pipe.send(to_json(error))
        return
    pipe.send(None)
    while True:
        try:
            prepared = pipe.recv()
        except EOFError:
            return
        try:
            answer: Encoded | str = encode_each(encoder, prepared, _ignore)
        except PipelineError as error:
            answer = to_json(error)
        pipe.send(answer)


def _ignore(rows: int, tokens: int, room: int = 0) -> None:
    """Take progress that nobody follows."""


def encode_isolated(spare: SpareProcess, prepared: PreparedTexts, alive: Callable[[], None]) -> Encoded:
    """Encode all texts but those that end the process, each of them alone and twice.

    Those left are encoded together, in batches of their own: where none is guilty, the vectors are the usual ones.

    Args:
        spare: where they are encoded.
        prepared: the texts of a unit.
        alive: called now and then.

    Raises:
        NotIsolatedError: the process ends, and not for some single texts.
        PipelineError: as the encoder raises it.
    """
    trials = _Trials(spare, prepared, alive)
    rows = np.arange(len(prepared.n_tokens))
    found = trials.encode(rows)
    if found is not None:
        return found
    guilty = trials.guilty_among(rows)
    rows = np.setdiff1d(rows, list(guilty))
    found = trials.encode(rows)
    if found is None:
        raise NotIsolatedError(f"a process that encoded it alone ended {trials.how}, and no single row is the cause")
    vectors = np.full((len(prepared.n_tokens), found.vectors.shape[1]), np.nan, np.float32)
    vectors[rows] = found.vectors
    return Encoded(
        vectors=vectors,
        dead={
            row: (DeadCode.WORKER_KILLED, f"a process that encoded it alone ended {how}, twice")
            for row, how in guilty.items()
        },
    )


class _Trials:
    """Encodes some of the texts at a time; `how` is what became of the last process that ended."""

    def __init__(self, spare: SpareProcess, prepared: PreparedTexts, alive: Callable[[], None]) -> None:
        self._spare, self._prepared, self._alive = spare, prepared, alive
        self._ended, self._survived = 0, False
        self.how = ""

    def encode(self, rows: Rows) -> Encoded | None:
        """Return the vectors of some texts, or None where the process ended."""
        self._alive()
        try:
            found = self._spare.encode(self._prepared.select(np.isin(np.arange(len(self._prepared.n_tokens)), rows)))
        except ProcessEndedError as error:
            self._ended, self.how = self._ended + 1, str(error)
            if self._ended == MOST_ENDED or (self._ended == HOPELESS and not self._survived):
                reason = f"{self._ended} processes that encoded parts of it ended, the last one {self.how}"
                raise NotIsolatedError(reason) from error
            return None
        self._survived = True
        return found

    def guilty_among(self, rows: Rows) -> dict[int, str]:
        """Return which texts, of some that ended a process together, end it alone, and how."""
        if len(rows) == 1:
            # once may have been something else's doing, such as the machine's memory
            return {int(rows[0]): self.how} if self.encode(rows) is None else {}
        guilty: dict[int, str] = {}
        for half in [half for half in np.array_split(rows, 2) if self.encode(half) is None]:
            guilty |= self.guilty_among(half)
        return guilty
