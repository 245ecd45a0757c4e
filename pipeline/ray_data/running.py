"""A hold on the dataset at work, so that a run which ends before it can stop it.

One that is left behind would go on in its threads, and start a Ray of its own once that of the run is gone.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback


class Running(ExecutionCallback):  # type: ignore[misc] # Ray has no types here
    """Ray Data makes one a dataset, and introduces its executor; a process has one dataset at work."""

    executor: ClassVar[Any] = None

    def before_execution_starts(self, executor: Any) -> None:
        """Keep it."""
        Running.executor = executor

    def after_execution_succeeds(self, executor: Any) -> None:  # noqa: ARG002 - as Ray calls it
        """Let go of it."""
        Running.executor = None

    def after_execution_fails(self, executor: Any, error: Exception) -> None:  # noqa: ARG002
        """Let go of it."""
        Running.executor = None


def abandon(within_s: float) -> None:
    """Stop the dataset at work, if there is one: who iterates over it gets to its end. Actors end with the session."""
    executor = Running.executor
    if executor is not None:
        executor.shutdown(force=False)
        executor.join(timeout=within_s)  # Ray crashes when it is shut down under a thread that waits in it
