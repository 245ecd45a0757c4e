"""Encoders with rotary positions (ModernBERT, Nomic, EuroBERT, Qwen3) over texts that lie end to end.

They run by transformers' own code, all texts of a batch as one sequence whose positions start again with each text.
Only attention is ours, through transformers' attention interface: each text sees itself alone, as far as the layer's
window and direction allow. Nothing else in these models looks from one token to another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.batching import packed_batches
from pipeline.encoders.forward.feeding import Feed
from pipeline.encoders.forward.pretrained import load_pretrained, products
from pipeline.encoders.packed.packing import Buffers, Packing
from pipeline.encoders.packed.products import build_product, prefers_onednn, rows_to_fill
from pipeline.exceptions import ModelError

ATTENTION = "embatch_packed"
"""The name of our attention among those of transformers."""
CHECKED_LENGTHS = [130, 64, 17, 1]
CHECKED_DIFFERENCE = 0.05
"""Of a text's states, as a share of their size: some roundings of bfloat16; wrong is off by about 1."""


class PackedRotary:
    """The loaded encoder."""

    batches = staticmethod(packed_batches)

    def __init__(self, spec: EncoderSpec, device: torch.device) -> None:
        self._spec, self._device, self._dtype = spec, device, getattr(torch, spec.dtype)
        self._feed = Feed(device)
        AttentionInterface.register(ATTENTION, attend)
        self._model = load_pretrained(spec, device, attn_implementation=ATTENTION)
        if device.type == "cpu" and prefers_onednn(torch.backends.cpu.get_cpu_capability(), self._dtype):
            _take_products(self._model, self._dtype)
        if device.type == "cuda":
            self.check()

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Encode tokens of the host, int64 [tokens] with texts of `lengths` end to end, to float32 [tokens, width]."""
        packing, more = Packing(lengths), 0
        if self._device.type == "cpu":
            more = rows_to_fill(len(ids), self._dtype)
        numbers = nn.functional.pad(torch.stack([ids, packing.positions()]), (0, more))
        starts, numbers = self._feed.send(packing.host_starts(), numbers)
        packing = Packing(lengths, starts)
        with products(self._spec, self._device):
            hidden: Tensor = self._model(
                input_ids=numbers[:1], position_ids=numbers[1:], attention_mask=None, packing=packing
            ).last_hidden_state
        return hidden[0, : len(ids)].float()

    @torch.inference_mode()
    def check(self) -> None:
        """Compare small random texts, packed, with each of them alone by torch's attention.

        Raises:
            ModelError: the attention cannot run here, or differs.
        """
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(self._model.config.vocab_size, (sum(CHECKED_LENGTHS),), generator=draw)
        try:
            found = self.states(ids, CHECKED_LENGTHS)
        except torch.OutOfMemoryError:
            raise  # no fault of the attention
        except RuntimeError as error:
            raise self._refusal(f"it cannot run: {str(error).partition(chr(10))[0]}") from error
        self._model.set_attn_implementation("sdpa")
        for text, states in zip(*(torch.split(x, CHECKED_LENGTHS) for x in (ids, found)), strict=True):
            with products(self._spec, self._device):
                alone = self._model(input_ids=text[None].to(self._device)).last_hidden_state[0].float()
            difference = float((states - alone).norm() / alone.norm())
            if not difference <= CHECKED_DIFFERENCE:  # also where it is not a number
                raise self._refusal(f"a text of {len(text)} tokens is off by {difference:.2g}")
        self._model.set_attn_implementation(ATTENTION)

    def _refusal(self, reason: str) -> ModelError:
        return ModelError(
            self._spec.model, f"its packed forward fails its check here: {reason}; set encoder.backend: padded"
        )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """Attend within each text, as a function of transformers' attention interface.

    Args:
        module: the layer, which tells whether it is causal.
        query: [1, heads, tokens, width]; keys and values may have fewer heads, each for a group of queries.
        key: as above.
        value: as above; its dtype is that of the products.
        packing: how the texts lie.
        scaling: of the scores.
        sliding_window: tokens see those less than so many places away; all of them when None.

    Returns:
        [1, tokens, heads, width], 0 after the last text; and no weights.
    """
    causal = bool(module.is_causal)
    query, key = query.to(value.dtype), key.to(value.dtype)
    if query.device.type == "cuda":
        return _flash((query, key, value), packing, scaling, sliding_window, causal=causal), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out = query.new_zeros((1, query.shape[2], query.shape[1], query.shape[3]))
    for start, texts, length in packing.runs():
        tokens = slice(start, start + texts * length)
        one, two, three = (
            x[0, :, tokens].view(x.shape[1], texts, length, x.shape[3]).transpose(0, 1) for x in (query, key, value)
        )
        mask = None
        if sliding_window is not None and length > sliding_window:
            mask = _window(length, sliding_window, causal=causal)
        attended = nn.functional.scaled_dot_product_attention(
            one, two, three, attn_mask=mask, is_causal=causal and mask is None, scale=scaling
        )
        out[0, tokens].view(texts, length, *out.shape[2:]).copy_(attended.transpose(1, 2))
    return out, None


def _window(length: int, width: int, *, causal: bool) -> Tensor:
    """Return which keys each query sees, bool [length, length]."""
    seen = torch.ones(length, length, dtype=torch.bool).triu(1 - width)
    return seen.tril(0 if causal else width - 1)


def _flash(
    qkv: tuple[Tensor, Tensor, Tensor], packing: Packing, scale: float | None, window: int | None, *, causal: bool
) -> Tensor:
    """Attend by the operator below torch.nn.attention.varlen, whose own arguments change from version to version."""
    parts = (x[0].transpose(0, 1).contiguous() for x in qkv)
    longest = packing.longest
    behind = -1 if window is None else window - 1
    attended: Tensor = torch.ops.aten._flash_attention_forward(  # noqa: SLF001
        *(*parts, packing.starts, packing.starts, longest, longest),
        dropout_p=0.0,
        is_causal=causal,
        return_debug_mask=False,
        scale=scale,
        window_size_left=behind,
        window_size_right=0 if causal else behind,
    )[0]
    return attended[None]


class _OneDnnLinear(nn.Module):
    """A linear layer by oneDNN, of weights that are laid out once."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        bias = None if linear.bias is None else linear.bias.detach()
        self._product = build_product(linear.weight.detach(), bias, dtype, Buffers(), name="")

    def forward(self, x: Tensor) -> Tensor:
        """Multiply [..., in] to [..., out]."""
        flat = self._product(x.flatten(0, -2))
        return flat.view(*x.shape[:-1], flat.shape[1])


def _take_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Put oneDNN's products in the place of torch's."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, _OneDnnLinear(child, dtype))
