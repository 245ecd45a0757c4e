"""Between the host and a device, so that neither waits for the other inside a unit.

Small tensors go to a GPU from pinned memory on a stream of their own, while the forward before them still runs; a
unit's vectors come back in one copy, which is the only wait. On a CPU both are the tensors themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Feed:
    """The way to one device and back."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def send(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Bring tensors of the host to the device; kernels launched after this see them."""
        if self._stream is None:
            return tuple(tensor.to(self._device) for tensor in tensors)
        with torch.cuda.stream(self._stream):
            # the allocator keeps the pinned copy until the stream has read it
            sent = tuple(tensor.pin_memory().to(self._device, non_blocking=True) for tensor in tensors)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in sent:
            tensor.record_stream(current)  # or its memory could be given away while the forward reads it
        return sent

    def fetch(self, result: Tensor) -> Tensor:
        """Bring a tensor of the device to the host, once all that was launched before is done."""
        fetched = result.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        if self._stream is not None:
            torch.cuda.current_stream(self._device).synchronize()
        return fetched
