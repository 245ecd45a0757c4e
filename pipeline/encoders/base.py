"""What an encoder is: a resolved specification, and two halves that work apart.

The preparing half runs in CPU tasks and needs no torch; the encoding half runs in actors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.records import DeadCode

Vectors = npt.NDArray[np.float32]
Brackets = Literal["query", "document"]
PromptPooling = Literal["include", "exclude", "instructor", "unknown"]
"""`unknown`: the files do not tell, so that no prompt is accepted."""


class Progress(Protocol):
    """Called after each batch."""

    def __call__(self, rows: int, tokens: int, room: int = 0) -> None:
        """Take the rows and tokens it held, and the tokens it had room for; 0 where batches are not of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """A model resolved: all that decides its vectors, plus the folder this node reads it from.

    `files` maps each model file to its sha256. `heads` are the modules after the transformer, in
    order. `prompt_pooling` says what pooling does with a prompt's tokens. `dtype` is that of the
    forward, `backend` how it runs, `backend_reason` why padded where that was not asked for; pooling and heads are
    float32. `brackets` are SGPT's. `remote_code` says that the model's own code runs, whose files are among `files`.
    """

    kind: str
    model: str
    revision: str | None
    folder: str
    files: dict[str, str]
    model_type: str
    dimension: int
    max_seq_length: int
    lower_case: bool
    prompt: str
    heads: list[dict[str, Any]]
    dtype: str
    backend: str
    max_batch_tokens: int
    flops_per_token: int
    prompt_pooling: PromptPooling = "include"
    backend_reason: str | None = None
    brackets: Brackets | None = None
    remote_code: bool = False
    hosted: dict[str, Any] | None = None
    """Of a hosted model: `RemoteConfig.identity()`; `revision` is then what the API calls the model."""

    def identity(self) -> dict[str, Any]:
        """Return what goes into the plan: everything but where this node keeps the files, and what is not used."""
        optional = {"backend_reason", "brackets", "remote_code", "hosted"}
        kept = {key: value for key, value in asdict(self).items() if value or key not in optional}
        kept.pop("folder")
        return kept

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any], folder: str) -> EncoderSpec:
        """Rebuild a spec from a plan on a node that keeps the files in `folder`."""
        known = {field.name for field in fields(cls)}
        return cls(folder=folder, **{key: value for key, value in identity.items() if key in known})

    @property
    def limit(self) -> str:
        """How much of a text is read, in words."""
        if self.hosted is None:
            return f"{self.max_seq_length:,} tokens"
        chars = self.hosted["max_chars"]
        return "as many tokens as the API takes" if chars is None else f"{chars:,} characters"

    @property
    def normalized(self) -> bool:
        """Whether vectors are known to have unit length."""
        return bool(self.heads) and self.heads[-1]["type"] == "normalize"

    @property
    def pooling(self) -> str:
        """The pooling modes, joined by `+`."""
        return "+".join(self.heads[0]["modes"]) if self.heads and self.heads[0]["type"] == "pooling" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTexts:
    """Texts ready to encode, as Arrow columns.

    `rows` has one value a text: `n_tokens` int32 (special tokens included), `truncated` bool, `chars` int32
    (characters of prompt and text), `chars_lost` int32 (those after the last token kept), and what else the
    encoder needs. Where only a hosted model counts, `n_tokens` is null and `tokens_estimate` int32 is there.
    `token_ids` int32 holds all tokens end to end, or is empty.
    """

    rows: dict[str, pa.Array]
    token_ids: pa.Array

    @property
    def n_tokens(self) -> npt.NDArray[np.int32]:
        """Tokens of each text, counted or estimated, int32 [n]."""
        return np.asarray(self.rows.get("tokens_estimate", self.rows["n_tokens"]))

    @property
    def no_room(self) -> npt.NDArray[np.bool_]:
        """Where a text's prompt alone fills the limit, so that nothing of the text would be read, bool [n]."""
        if "no_room" not in self.rows:
            return np.zeros(len(self.n_tokens), bool)
        return np.asarray(self.rows["no_room"].to_numpy(zero_copy_only=False))

    def select(self, keep: npt.NDArray[np.bool_]) -> PreparedTexts:
        """Return only the texts where `keep` is true, bool [n]."""
        mask = pa.array(keep)
        tokens = self.token_ids
        if len(tokens):
            tokens = tokens.filter(pa.array(np.repeat(keep, self.n_tokens)))
        return PreparedTexts(rows={name: column.filter(mask) for name, column in self.rows.items()}, token_ids=tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What became of a unit's texts.

    `vectors` is float32 [n, dimension], NaN where a text has none; `dead` says why, by row. `tokens` is what a
    hosted model counted, None where each row has its own number; `waited_s` went by for its rate limits.
    """

    vectors: Vectors
    tokens: int | None = None
    dead: Mapping[int, tuple[DeadCode, str]] = field(default_factory=dict)
    waited_s: float = 0.0


class Preparer(Protocol):
    """The half that runs in CPU tasks."""

    def prepare(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> PreparedTexts:
        """Tokenize texts, each after its prompt; None takes the spec's prompt for all."""


class Encoder(Protocol):
    """The half that runs in actors."""

    def encode(self, prepared: PreparedTexts, progress: Progress | None = None) -> Vectors:
        """Encode to float32 [n, dimension], in the order given."""


@runtime_checkable
class HostedEncoder(Protocol):
    """An encoding half that may refuse single texts, and counts tokens only while it encodes."""

    def encode_each(self, prepared: PreparedTexts, progress: Progress | None = None) -> Encoded:
        """Encode what is accepted, in the order given."""


def encode_each(encoder: Encoder, prepared: PreparedTexts, progress: Progress) -> Encoded:
    """Encode with any encoder, and tell what only a hosted one has to tell."""
    if isinstance(encoder, HostedEncoder):
        return encoder.encode_each(prepared, progress)
    return Encoded(vectors=encoder.encode(prepared, progress))
