"""A model's tensors by name, read from its safetensors files; a missing one is refused, never initialised."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.encoders.files import layout
from pipeline.exceptions import ModelError


class Weights:
    """Tensors in float32, whatever they are stored in."""

    def __init__(self, model: str, tensors: dict[str, Tensor]) -> None:
        self._model, self._tensors = model, tensors

    def __getitem__(self, name: str) -> Tensor:
        """Return one tensor.

        Raises:
            ModelError: the checkpoint lacks it.
        """
        if name not in self._tensors:
            raise ModelError(self._model, f"the weights lack the tensor {name}")
        if not self._tensors[name].is_floating_point():
            raise ModelError(self._model, f"the tensor {name} is {self._tensors[name].dtype}, so it is quantized")
        return self._tensors[name].to(torch.float32)

    def first(self, *names: str) -> Tensor:
        """Return the first of several names that checkpoints give one tensor."""
        return self[next((name for name in names if name in self._tensors), names[0])]

    def below(self, prefix: str) -> Weights:
        """Return the tensors without a prefix that some checkpoints put before all names."""
        start = f"{prefix}."
        if not any(name.startswith(start) for name in self._tensors):
            return self
        tensors = {name.removeprefix(start): tensor for name, tensor in self._tensors.items()}
        return Weights(self._model, tensors)

    def linear(self, name: str) -> tuple[Tensor, Tensor]:
        """Return weight [out, in] and bias [out] of a linear layer."""
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a layer norm, under their older names too."""
        if f"{name}.gamma" in self._tensors:
            return self[f"{name}.gamma"], self[f"{name}.beta"]
        return self[f"{name}.weight"], self[f"{name}.bias"]


def load_weights(model: str, folder: Path, files: list[str]) -> Weights:
    """Read the transformer's files of a folder; heads keep theirs in folders of their own.

    Raises:
        ModelError: a file cannot be read.
    """
    shards = ["model.safetensors"]
    if shards[0] not in files:  # an index tells its shards from those of an earlier upload
        shards = sorted(layout.shards_of(json.loads((folder / layout.SAFETENSORS_INDEX).read_bytes())))
    tensors: dict[str, Tensor] = {}
    for name in shards:
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise ModelError(model, f"cannot load {name}: {error}") from error
    return Weights(model, tensors)
