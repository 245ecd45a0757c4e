"""What ends a worker is worth another try, or it is a bug: as Ray hands it to the driver."""

from __future__ import annotations

import pytest
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from pipeline.exceptions import InterruptedRunError, PipelineError
from pipeline.job import exit_code
from pipeline.ray_data import dataset


class Failing:
    """A dataset whose execution ends with an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def iter_batches(self, **_options: object) -> None:
        raise self._error


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> BaseException:
    monkeypatch.setattr(dataset, "_dataset", lambda *_: Failing(error))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - which one is the question
        list(dataset.receipts([], None, None, None))
    return caught.value


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("read_units", "Traceback of the worker", cause).as_instanceof_cause()


def test_a_bug_is_not_worth_another_try(monkeypatch):
    error = ending(monkeypatch, raised(KeyError("text")))
    assert exit_code(error) == PipelineError.exit_code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (raised(MemoryError()), "a worker failed: MemoryError"),
        (raised(OSError(28, "No space left on device")), "a worker failed: .*No space left"),
        (raised(RayActorError()), "a worker failed: RayActorError"),
        (WorkerCrashedError(), "Ray gave up: The worker died"),
    ],
    ids=["memory", "disk", "lost actor", "lost worker"],
)
def test_what_may_pass_is_an_interruption(monkeypatch, error, said):
    found = ending(monkeypatch, error)
    assert isinstance(found, InterruptedRunError)
    with pytest.raises(InterruptedRunError, match=said):
        raise found
