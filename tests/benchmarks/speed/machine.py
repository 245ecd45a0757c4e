"""What a run ran on: hardware, versions, the commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.speed.processes import PEERS_PYTHON, ROOT

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "triton", "ray", "pyarrow", "numpy")
PEERS = ("openvino", "onnxruntime", "onnx", "daft")


def describe() -> dict[str, Any]:
    """Processor, memory and versions of what is installed."""
    cpu = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in cpu.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{fields.get('model name', platform.machine())} (family {fields.get('cpu family')}, "
        f"model {fields.get('model')})",
        "flags": [flag for flag in FLAGS if flag in fields.get("flags", "").split()],
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": versions(PACKAGES),
        "commit": _commit(),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those packages that this environment has."""
    found = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def peers() -> dict[str, str]:
    """Versions of the peers that `make bench` has installed beside this environment."""
    if not PEERS_PYTHON.exists():
        return {}
    code = "import importlib.metadata as m; print(*(f'{d.name} {d.version}' for d in m.distributions()), sep='\\n')"
    done = subprocess.run([str(PEERS_PYTHON), "-c", code], capture_output=True, text=True, check=False)
    found = dict(line.split() for line in done.stdout.splitlines()[::-1])
    return {name: found[name] for name in PEERS if name in found}


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() or "unknown"
