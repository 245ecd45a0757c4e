"""The model, and what is put before its texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.remote import RemoteConfig
from pipeline.config.section import Count, Section, Text, refuse_credentials


class PromptConfig(Section):
    """What is put before each text; exactly one of the first four."""

    text: str | None = None
    """The prompt itself."""
    name: str | None = None
    """A prompt that the model's own files name, such as `query`."""
    template: str | None = None
    """A prompt built per row from columns: "Represent the {domain} text: "."""
    column: str | None = None
    """A column that holds each row's prompt; null or empty is no prompt."""
    vocabulary: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """With `template` or `column`: the prompts that rows may have, "" for none; a row with another is a dead letter."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("text", "name", "template", "column") if getattr(self, key) is not None]
        if len(given) != 1:
            msg = f"give exactly one of text, name, template, column (got {', '.join(given) or 'none'})"
            raise ValueError(msg)
        if self.vocabulary is not None and not self.per_row:
            msg = f"vocabulary is for prompts a row, by template or column; this one is by {given[0]}"
            raise ValueError(msg)
        return self

    @property
    def per_row(self) -> bool:
        """Whether each row brings its own prompt."""
        return self.template is not None or self.column is not None


class EncoderConfig(Section):
    """The model and everything about it that changes the vectors."""

    model: Text
    """A hub id, a folder, a URI (`s3://models/gte-small/`), `packaged:all-MiniLM-L6-v2`, or `hashing:64` for tests;
    with `backend: remote` the API's name of it, such as `text-embedding-3-small`."""
    revision: str | None = None
    """The hub revision; when absent, the current commit is pinned in the plan."""
    prompt: PromptConfig | None = None
    """Put before each text; a bare string is its text, "" none. Must be said for models trained with one (E5, Nomic,
    INSTRUCTOR, EmbeddingGemma)."""
    prompt_pooling: Literal["auto", "include", "exclude", "instructor"] = "auto"
    """Whether pooling sees the prompt's tokens, or leaves them out, or does so by INSTRUCTOR's rule; `auto` goes by
    the model's files, then its name."""
    brackets: Literal["none", "query", "document"] | None = None
    """The tokens SGPT was trained with around each text, `[ ]` around a query, `{ }` around a document; must be said
    for models of that name."""
    pooling: Literal["auto", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = "auto"
    """`auto` takes the model's own; needed where its folder does not say."""
    max_seq_length: Count | None = None
    """Tokens a text, special tokens included; the model's own when absent."""
    truncate_dim: Count | None = None
    """Keep only the first n numbers of each vector, and scale it to length 1 again where the model does; for models
    trained for it (Matryoshka). The model's own when absent."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the forward; pooling is always float32. `auto` is resolved once and recorded in the plan."""
    backend: Literal["auto", "packed", "padded", "remote"] = "auto"
    """`packed` spends nothing on padding (BERT, RoBERTa, XLM-R, DistilBERT, MPNet, T5, ModernBERT, Nomic, EuroBERT,
    Qwen3); `padded` runs any model on any device; `auto` is packed where it can be, and the plan records which and
    why; `remote` asks the API that `remote` names."""
    remote: RemoteConfig | None = None
    """The API of a hosted model."""
    max_batch_tokens: Count | Literal["auto"] = "auto"
    """Tokens a batch, padding included; `auto` is a static default, recorded in the plan."""
    convert_pickle: Annotated[bool, Field(strict=True)] = False
    """Convert weights published only as pickles to safetensors, once a node, in a process of its own."""
    trust_remote_code: Annotated[bool, Field(strict=True)] = False
    """Run the code that a model of the hub brings along, in the replicas, with all they may do; `revision` must be a
    full commit."""

    @field_validator("model")
    @classmethod
    def _no_credentials(cls, model: str) -> str:
        return refuse_credentials(model)

    @field_validator("prompt", mode="before")
    @classmethod
    def _bare_string(cls, prompt: object) -> object:
        return {"text": prompt} if isinstance(prompt, str) else prompt

    def cost(self, tokens: int) -> float | None:
        """Return what a hosted model takes for so many tokens; None where the job names no price."""
        price = None if self.remote is None else self.remote.price_per_million_tokens
        return None if price is None else tokens * price / 1e6
