"""Where the GPU's kernels run in tests: in Triton's interpreter on a CPU, or on a device where there is one."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if interpreted != (request.param == "cpu"):
        pytest.skip("kernels are interpreted on a machine without a GPU, or with TRITON_INTERPRET=1")
    pytest.importorskip("triton")
    return torch.device(request.param)
