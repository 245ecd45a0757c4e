"""A Ray cluster of separately started raylets, protected by a token: as on real machines, and with their faults."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TOKEN = secrets.token_hex(16)
QUICK = {
    "RAY_metrics_report_interval_ms": "1000",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
START_SECONDS = 90


class RayNodes:
    """The head holds no encoder; each node has one CPU. Every node is a process group of its own.

    With `job_server` jobs can be submitted to it; `environment` is that of every node.
    """

    def __init__(self, *, job_server: bool = True, **environment: str) -> None:
        self._settings = environment
        self._temp = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets have short names
        self._gcs, self._server, self._metrics = free_port(), free_port(), free_port()
        self._groups: list[subprocess.Popen[bytes]] = []
        head = ["--head", f"--port={self._gcs}", "--num-cpus=0", "--dashboard-host=127.0.0.1"]
        head += [f"--dashboard-port={self._server}", f"--metrics-export-port={self._metrics}"]
        head += [f"--include-dashboard={str(job_server).lower()}", f"--temp-dir={self._temp}"]
        self._start(head)
        if job_server:
            self._wait(self._server_answers, Path(self._temp, "node-0.log"))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server}"

    @property
    def head(self) -> str:
        """What a driver joins."""
        return f"127.0.0.1:{self._gcs}"

    @property
    def port(self) -> int:
        return self._server

    def metrics(self) -> str:
        """What Prometheus would read from the head, where drivers run."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}

    def add_node(self, **labels: str) -> int:
        """Start a node with one CPU and these labels; returns its number, for `kill`."""
        named = [f"--labels={name}={value}" for name, value in labels.items()]
        return self._start([f"--address=127.0.0.1:{self._gcs}", "--num-cpus=1", *named])

    def kill(self, node: int) -> None:
        """Lose a node with all that runs on it, at once."""
        os.killpg(self._groups[node].pid, signal.SIGKILL)
        self._groups[node].wait()

    def signal(self, node: int, process: str, number: signal.Signals) -> None:
        """Send a signal to one process of a node: its raylet, or the head's gcs_server."""
        os.kill(self._process(node, process), number)

    def drain(self, node: int, seconds: int) -> None:
        """Tell the cluster that a node will be taken away in so many seconds, as a cloud does of a spot machine."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", f"--address={self.head}"]
        command += [f"--node-id={self._node_id(node)}", f"--deadline-remaining-seconds={seconds}"]
        command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=taken away"]
        subprocess.run(command, env={**os.environ, **self.environment()}, check=True, timeout=START_SECONDS)

    def close(self) -> None:
        for group in self._groups:
            if group.poll() is None:
                os.killpg(group.pid, signal.SIGKILL)
                group.wait()
        shutil.rmtree(self._temp, ignore_errors=True)

    def _process(self, node: int, name: str) -> int:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                ours = os.getpgid(int(folder.name)) == self._groups[node].pid
                if ours and (folder / "comm").read_text().strip() == name:
                    return int(folder.name)
        raise LookupError(name)

    def _node_id(self, node: int) -> str:
        command = Path(f"/proc/{self._process(node, 'raylet')}/cmdline").read_text()
        return command.partition("--node_id=")[2].partition("\0")[0]

    def _start(self, arguments: list[str]) -> int:
        python = str(Path(sys.executable).parent)
        environment = {**os.environ, **self.environment(), **QUICK, **self._settings}
        environment["PATH"] = f"{python}:{environment['PATH']}"  # where drivers look for `python`
        # its usual port can be taken by one node of a machine only, and a node without its agent starts no job
        own = ["--object-store-memory=100000000", f"--dashboard-agent-listen-port={free_port()}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *own]
        log = Path(self._temp, f"node-{len(self._groups)}.log")
        with log.open("wb") as output:
            group = subprocess.Popen(
                [*command, *arguments], env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._groups.append(group)
        self._wait(lambda: "Ray runtime started" in log.read_text(), log)
        return len(self._groups) - 1

    def _server_answers(self) -> bool:
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            return False

    @staticmethod
    def _wait(ready: Callable[[], bool], log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
