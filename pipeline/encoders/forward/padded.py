"""Any supported transformers model, in length-sorted padded batches: the universal forward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.encoders.architecture.families import family_of
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.batching import token_batches
from pipeline.encoders.forward.feeding import Feed
from pipeline.encoders.forward.pretrained import load_pretrained, products


class PaddedForward:
    """A model of transformers.

    Padding stands on the right, also for decoders: no token sees what follows it, so that none sees padding.
    """

    def __init__(self, spec: EncoderSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self._feed = Feed(device)
        self._model = load_pretrained(spec, device)
        self._equal = family_of(spec.model_type, remote_code=spec.remote_code).sees_padding
        self._pad = self._model.config.pad_token_id or 0

    def batches(self, lengths: npt.NDArray[np.int32], max_tokens: int, /) -> list[npt.NDArray[np.int64]]:
        """Group texts of similar length; of equal length where a token would see padding."""
        return token_batches(lengths, max_tokens, equal=self._equal)

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Pad, run, and drop the padding again; float32 [tokens, width]."""
        padded = nn.utils.rnn.pad_sequence(list(torch.split(ids, lengths)), batch_first=True, padding_value=self._pad)
        inside = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
        # found on the host: counting on a device would make it wait
        padded, mask, rows = self._feed.send(padded, inside.long(), inside.flatten().nonzero().squeeze(1))
        # without padding no mask is built, which is exact and faster; a model's own code may need one
        unpadded = min(lengths) == max(lengths) and not self._spec.remote_code
        with products(self._spec, self._device):
            hidden: Tensor = self._model(input_ids=padded, attention_mask=None if unpadded else mask).last_hidden_state
        return hidden.flatten(0, 1)[rows].float()
