"""Start a local Ray or join the one that was asked for, quietly, and say what it offers.

Ray is imported where it is used: a run with nothing left to do needs none.
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pipeline.config import ClusterConfig
from pipeline.exceptions import ConfigError, InterruptedRunError
from pipeline.ray_data import lean

LOCAL_OBJECT_STORE_BYTES = 1 << 30
CONNECT_SECONDS = 15.0
OPEN_FILES = 1024
"""Ray raises the soft limit to the hard one by itself; with a few dozen its processes end, or hang, without a cause."""
HEADLESS_SECONDS = 180
"""How long Ray waits for a head that is gone, then to end this process without a word; the run itself ends before."""
OUT_OF_MEMORY_RETRIES = 10
"""How often a task begins again that Ray ended for want of memory, ever later; Ray's own number has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A Ray cluster in use."""

    local: bool
    cpus: int
    gpus: int
    memory_bytes: int


def is_local(config: ClusterConfig) -> bool:
    """Tell whether the run brings its own Ray: no address in the job nor in RAY_ADDRESS."""
    return config.address == "local" or (config.address == "auto" and not os.environ.get("RAY_ADDRESS"))


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[Session]:
    """Hold a connection to Ray; a local one ends with the block.

    Raises:
        ConfigError: the address cannot be reached, a cluster needs `cluster.device`, or this process may open too few
            files.
    """
    local = is_local(config)
    if not local and config.device == "auto":
        raise ConfigError("cluster.device", "set cpu or cuda: the driver's own devices say nothing of a cluster's")
    require_open_files()
    if not local:
        _require_answer(_address(config))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEADLESS_SECONDS))
    os.environ.setdefault("RAY_task_oom_retries", str(OUT_OF_MEMORY_RETRIES))
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # a second of imports that the start below leaves room for
    dataset = threading.Thread(target=importlib.import_module, args=("pipeline.ray_data.driving",), daemon=True)
    dataset.start()
    try:
        with lean.without_signal_handler(), lean.without_notice():
            if local:
                _start_local()
            else:
                ray.init(address=_address(config), log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError("cluster.address", f"cannot start or reach Ray: {error}") from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray puts one of its own below Python's
    dataset.join()
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it logs what it raises, twice
    with ExitStack() as stack:
        if local:
            stack.enter_context(lean.without_statistics())
        stack.callback(ray.shutdown)
        yield _describe(local=local)


def require_open_files() -> None:
    """Look at how many files this process may have open.

    Raises:
        ConfigError: too few for Ray.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < OPEN_FILES:
        raise ConfigError("ulimit -n", f"{most} open files are too few for Ray; allow {OPEN_FILES:,} or more")


def _address(config: ClusterConfig) -> str:
    return os.environ["RAY_ADDRESS"] if config.address == "auto" else config.address


def _require_answer(address: str) -> None:
    """Look for a Ray before joining it: Ray itself tries for a quarter of an hour, and heeds no signal meanwhile."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            "cluster.address", f"no Ray answers at {address}, which the job or RAY_ADDRESS names: {error}"
        ) from error


def _start_local() -> None:
    # Ray logs an error line for each actor pool whose constructor has arguments; it is harmless here
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    with lean.without_extras():
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        )


def _describe(*, local: bool) -> Session:
    import ray

    resources = ray.cluster_resources()
    session = Session(
        local=local,
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        memory_bytes=int(resources.get("memory", 0)),
    )
    if session.cpus < 1:
        raise InterruptedRunError("the Ray cluster offers no CPU")
    return session
