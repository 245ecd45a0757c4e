"""Which precision a model runs in, decided once from its family and the device."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.encoders.architecture.families import T5_KIN, family_of
from pipeline.exceptions import ConfigError, DeviceError, ModelError

CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 32_768
_AMPERE = (8, 0)
"""The first compute capability with bfloat16, and of the flash kernels."""
_DRIVER = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg")
"""What shows a driver: its device, which a container has whichever cards it is given, its module, and that of WSL."""
_CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_ASSUMED_FLOPS = {"cpu": {"float32": 9e10, "16 bits": 3e11}, "cuda": {"float32": 3e13, "16 bits": 2e14}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a node offers: `kind` is cpu or cuda, `bf16` whether it multiplies bfloat16 natively.

    `lacks` says what a GPU lacks for the packed forward, None where nothing.
    """

    kind: str
    bf16: bool
    lacks: str | None = None


def detect(requested: str) -> Device:
    """Look at this node.

    Raises:
        DeviceError: cuda was asked for and there is none.
    """
    if requested != "cpu" and nvidia_driver():
        import torch  # two seconds; only where a driver is loaded

        if torch.cuda.is_available():
            capability = torch.cuda.get_device_capability()
            return Device(kind="cuda", bf16=capability >= _AMPERE, lacks=lacking(capability))
    if requested == "cuda":
        raise DeviceError("cuda", "no CUDA device on this node; set cluster.device: cpu")
    return Device(kind="cpu", bf16=_cpu_bf16())


def nvidia_driver() -> bool:
    """Whether a driver is loaded, which is known before torch is imported."""
    return any(Path(path).exists() for path in _DRIVER)


def device_name(kind: str) -> str:
    """Return what this node's device of a kind is called, for reports."""
    if kind == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


def require_dtype(model: str, dtype: str, device_kind: str) -> None:
    """Refuse a device that only emulates the precision of a run: the others would wait for it.

    Raises:
        ModelError: this node's GPU has no bfloat16.
    """
    if device_kind == "cuda" and dtype == "bfloat16" and not detect("cuda").bf16:
        reason = f"the run is in bfloat16, which the {device_name('cuda')} of this node lacks"
        raise ModelError(model, f"{reason}; choose nodes by cluster.accelerator_type or cluster.labels")


def lacking(capability: tuple[int, int]) -> str | None:
    """Say what a GPU of this compute capability, or this process, lacks for the packed forward; None where nothing."""
    if capability < _AMPERE:
        return f"its compute capability is {capability[0]}.{capability[1]}, the kernels need 8.0"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; CUDA builds of torch bring it along"
    if not (os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc")):
        return "Triton compiles with gcc or clang, and neither is installed"
    return None


def resolve_dtype(requested: str, device: Device, model_type: str, *, remote_code: bool = False) -> str:
    """Return the forward's dtype: as asked, else 16 bits where the device multiplies them and the family fits them.

    float16 is ten times closer to float32 than bfloat16, but only where norms bound the activations;
    T5's residual stream overflows it, on any device. On CPU float16 is emulated, so bfloat16 it is.

    Raises:
        ConfigError: float16 was asked for and the family overflows it, or would be computed wrongly.
    """
    family = family_of(model_type, remote_code=remote_code)
    if requested == "float16" and model_type in T5_KIN and not remote_code:
        raise ConfigError("encoder.dtype", "T5's residual stream overflows float16; use bfloat16, float32 or auto")
    if requested == "float16" and family.exact_scores:
        reason = f"{model_type} keeps positions in its scores, which float16 would round; use bfloat16, float32 or auto"
        raise ConfigError("encoder.dtype", reason)
    if requested != "auto":
        return requested
    if device.kind == "cuda" and family.bounded:
        return "float16"
    return "bfloat16" if device.bf16 else "float32"


def default_batch_tokens(device: Device) -> int:
    """Return the static token budget of a batch."""
    return GPU_BATCH_TOKENS if device.kind == "cuda" else CPU_BATCH_TOKENS


def assumed_flops_per_s(device_kind: str, dtype: str) -> float:
    """Return what a replica, one core or one card, is taken to reach where nothing was measured: a round figure.

    It decides how many rows a unit has and what a plan estimates, so it must never depend on the machine.
    """
    return _ASSUMED_FLOPS[device_kind]["float32" if dtype == "float32" else "16 bits"]


def _cpu_bf16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(flags & _CPU_BF16_FLAGS)
