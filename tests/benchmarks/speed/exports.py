"""Conversion of a model with its pooling to the graph of another engine: `exports KIND MODEL_FOLDER TARGET`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

INPUTS = ("input_ids", "attention_mask", "pooled")


class Embedder(nn.Module):
    """Transformer, mean over what `pooled` marks, dense layers, normalisation."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        chain = SentenceTransformer(folder, device="cpu")
        self.transformer = chain[0].auto_model
        self.dense = nn.Sequential(*(module.linear for module in chain if hasattr(module, "linear")))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pooled: Tensor) -> Tensor:
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        marked = pooled.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize(self.dense((states * marked).sum(1) / marked.sum(1)), dim=1)


def to_openvino(model: nn.Module, example: dict[str, Tensor], target: Path) -> None:
    """Trace to OpenVINO's own format, weights in float32."""
    import openvino

    inputs = [(name, [-1, -1], openvino.Type.i64) for name in INPUTS]
    openvino.save_model(
        openvino.convert_model(model, example_input=example, input=inputs), target, compress_to_fp16=False
    )


def to_onnx(model: nn.Module, example: dict[str, Tensor], target: Path) -> None:
    """Export through torch.export."""
    sizes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        model,
        kwargs=example,
        f=target,
        input_names=list(INPUTS),
        output_names=["vectors"],
        dynamo=True,
        dynamic_shapes=dict.fromkeys(INPUTS, sizes),
    )


def main() -> None:
    """Convert one model."""
    kind, folder, target = sys.argv[1:]
    # two texts of unlike length, so that nothing is taken for constant
    ids = torch.randint(10, 1000, (2, 20))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    model, example = Embedder(folder).eval(), dict(zip(INPUTS, (ids, mask, mask.clone()), strict=True))
    with torch.inference_mode():
        {"openvino": to_openvino, "onnx": to_onnx}[kind](model, example, Path(target))


if __name__ == "__main__":
    main()
