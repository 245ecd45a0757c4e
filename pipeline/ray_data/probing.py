"""Call a function where units will be encoded: in this process for a local Ray, else on a worker of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pipeline.config import ClusterConfig
from pipeline.exceptions import InterruptedRunError, PipelineError
from pipeline.ray_data.session import is_local, ray_session

T = TypeVar("T")
Call = Callable[..., Any]
SCHEDULING_SECONDS = 120.0


@contextmanager
def workplace(config: ClusterConfig) -> Iterator[Call]:
    """Yield what calls a function with its arguments and returns its value, or raises its PipelineError.

    Raises:
        ConfigError: the cluster cannot be reached.
        InterruptedRunError: it had no room for the call, or lost it.
    """
    if is_local(config):
        yield lambda function, *arguments: function(*arguments)
        return
    with ray_session(config):
        yield lambda function, *arguments: _remotely(config, function, *arguments)


def _remotely(config: ClusterConfig, function: Callable[..., T], *arguments: Any) -> T:
    import ray

    gpu = config.device == "cuda"
    remote = ray.remote(function).options(num_cpus=0 if gpu else 1, num_gpus=1 if gpu else 0)
    try:
        value: T = ray.get(remote.remote(*arguments), timeout=SCHEDULING_SECONDS)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PipelineError):
            raise error.cause from error
        raise
    except ray.exceptions.GetTimeoutError as error:
        asked = "a GPU" if gpu else "a CPU"
        raise InterruptedRunError(f"the cluster offered {asked} to nobody for {SCHEDULING_SECONDS:g} s") from error
    except ray.exceptions.RayError as error:
        raise InterruptedRunError(f"the cluster lost the worker: {error}") from error
    return value
