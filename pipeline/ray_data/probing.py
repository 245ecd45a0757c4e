"""Call a function where units will be encoded: in this process for a local Ray, else on a worker of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pipeline.config import ClusterConfig
from pipeline.encoders.precision import Device, detect
from pipeline.exceptions import InterruptedRunError, PipelineError
from pipeline.ray_data.pool import replica_resources
from pipeline.ray_data.session import is_local, ray_session

T = TypeVar("T")
Call = Callable[..., Any]


@contextmanager
def workplace(config: ClusterConfig, within_s: float | None = None) -> Iterator[Call]:
    """Yield what calls a function with its arguments and returns its value, or raises its PipelineError.

    Without `within_s` a call waits as long as a cluster takes to bring a node up.

    Raises:
        ConfigError: the cluster cannot be reached.
        InterruptedRunError: it had no room for the call in that time, or lost it.
    """
    if is_local(config):
        yield lambda function, *arguments: function(*arguments)
        return
    with ray_session(config):
        yield lambda function, *arguments: _remotely(config, within_s, function, *arguments)


def encoding_device(config: ClusterConfig) -> Device:
    """Look at the device of what will encode: this machine's for a local Ray, else a worker's.

    Raises:
        ModelError: it is not the one that was asked for.
    """
    with workplace(config) as call:
        found: Device = call(detect, config.device)
        return found


def _remotely(config: ClusterConfig, within_s: float | None, function: Callable[..., T], *arguments: Any) -> T:
    import ray

    remote = ray.remote(function).options(**replica_resources(config, config.device))
    try:
        value: T = ray.get(remote.remote(*arguments), timeout=within_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PipelineError):
            raise error.cause from error
        raise
    except ray.exceptions.GetTimeoutError as error:
        asked = "a GPU" if config.device == "cuda" else "a CPU"
        raise InterruptedRunError(f"the cluster offered {asked} to nobody for {within_s:g} s") from error
    except ray.exceptions.RayError as error:
        raise InterruptedRunError(f"the cluster lost the worker: {error}") from error
    return value
