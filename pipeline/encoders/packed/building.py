"""Load a model's padding-free forward onto a device."""

from __future__ import annotations

import torch

from pipeline.encoders.architecture.families import family_of
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.transformer import Forward
from pipeline.encoders.packed.bert import PackedBert
from pipeline.encoders.packed.checking import check_kernels
from pipeline.encoders.packed.cpu import CpuKernels
from pipeline.encoders.packed.kernels import Kernels
from pipeline.encoders.packed.t5 import PackedT5
from pipeline.encoders.precision import lacking
from pipeline.exceptions import ModelError


def build_packed(spec: EncoderSpec, device: torch.device) -> Forward:
    """Load the weights; on a GPU compare its kernels first.

    Raises:
        ModelError: the weights cannot be loaded, or the kernels cannot run here.
    """
    missing = None if device.type == "cpu" else lacking(torch.cuda.get_device_capability(device))
    if missing is not None:
        # a plan is resolved on one node, and this is another
        raise ModelError(spec.model, f"no packed forward on this GPU: {missing}; set encoder.backend: padded")
    if family_of(spec.model_type).packed == "rotary":
        from pipeline.encoders.packed.rotary import PackedRotary  # transformers takes seconds to import

        return PackedRotary(spec, device)
    if device.type == "cpu":
        return load_packed(spec, CpuKernels(getattr(torch, spec.dtype)))
    from pipeline.encoders.packed.cuda import CudaKernels  # the only one to need Triton

    kernels = CudaKernels(device, getattr(torch, spec.dtype))
    forward = load_packed(spec, kernels)
    check_kernels(kernels, spec.model, forward.shape)
    return forward


def load_packed(spec: EncoderSpec, kernels: Kernels) -> PackedBert | PackedT5:
    """Load the weights for some kernels.

    Raises:
        ModelError: a tensor is missing, or a file cannot be read.
    """
    return (PackedT5 if family_of(spec.model_type).packed == "t5" else PackedBert)(spec, kernels)
