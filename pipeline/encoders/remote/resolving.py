"""A hosted model resolved: one small request tells that the key works, the model's full name, and its dimension."""

from __future__ import annotations

from pipeline.config import RemoteConfig
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.remote.client import Client
from pipeline.encoders.remote.encoder import PROBE
from pipeline.encoders.remote.failures import RefusedError
from pipeline.encoders.remote.replies import Expected
from pipeline.exceptions import ConfigError, ModelError


def resolve(model: str, remote: RemoteConfig, prompt: str) -> EncoderSpec:
    """Ask the API for one vector.

    Raises:
        ConfigError: the key is missing or refused, or the prompt leaves no room for a text.
        ModelError: the API has no such model, or gives vectors of another model or dimension.
        InterruptedRunError: it does not answer.
    """
    if remote.max_chars is not None and len(prompt) >= remote.max_chars:
        raise ConfigError("encoder.prompt", f"fills all {remote.max_chars} characters of encoder.remote.max_chars")
    client = Client(remote, Expected(model=model, reply_model=None, dimension=remote.dimensions))
    try:
        reply = client.embed([PROBE], 1)
    except RefusedError as error:
        reason = f"{client.url} refuses a text of one word: {error}; check encoder.model and encoder.remote.dimensions"
        raise ModelError(model, reason) from None
    _check_name(model, remote, reply.model)
    return EncoderSpec(
        kind="remote",
        model=model,
        revision=reply.model,
        folder="",
        files={},
        model_type="remote",
        dimension=reply.vectors.shape[1],
        max_seq_length=0,
        lower_case=False,
        prompt=prompt,
        heads=[],  # whether vectors have length 1 is the API's business
        dtype="float32",
        backend="remote",
        max_batch_tokens=0,
        flops_per_token=1,
        hosted=remote.identity(),
    )


def _check_name(model: str, remote: RemoteConfig, replied: str) -> None:
    """Accept a reply by the name that was asked for, or with a version after it: `text-embedding-ada-002-v2`."""
    expected = remote.reply_model or model
    if replied != expected and not (remote.reply_model is None and replied.startswith(f"{model}-")):
        raise ModelError(
            model,
            f"{remote.base_url} answers as model {replied[:80]!r}; if that is the one you mean, set "
            "encoder.remote.reply_model to it",
        )
