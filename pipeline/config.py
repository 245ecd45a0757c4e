"""The job file: one frozen pydantic model, built once at the edge and passed down by section.

Unknown keys are refused with their path and the nearest valid key. The environment is never
read here; it holds credentials only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from pipeline.exceptions import ConfigError
from pipeline.job_file import USER_INFO, read_values, shown

VectorKind = Literal["float32", "float16", "int8", "binary"]
KeepType = Literal["string", "int32", "int64", "float32", "float64", "bool"]
Count = Annotated[int, Field(gt=0, strict=True)]
"""A number of something; strict, as `true` would else be 1."""
Text = Annotated[str, Field(min_length=1)]
_NAME_IN_A_FILE = {"pattern": r"^([A-Za-z0-9]|\{ds\})([A-Za-z0-9._-]|\{ds\}){0,62}$"}
"""For editors, which see the name before the day is put into it."""

_DURATION = re.compile("([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?")
_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
"""No name with small letters, so that a key that was pasted there is not taken for one."""
_CONTAINER_PROTOCOLS = ("abfs", "abfss", "wasb", "wasbs", "adl")
"""On Azure a URI's user part names the container: abfs://container@account…/path."""


class Section(BaseModel):
    """A frozen group of keys that refuses any key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class InputConfig(Section):
    """Where the corpus is and which columns matter."""

    uri: Text
    """File, folder or glob of Parquet or JSON Lines (plain, gzip or zstd), on any fsspec protocol; `{ds}`: the day."""
    format: Literal["auto", "parquet", "jsonl"] = "auto"
    """`auto` goes by the suffix: .parquet, .pq, .jsonl, .ndjson, and .gz or .zst after them."""
    text: Text = "text"
    """The column to embed, or a template over columns such as "{title}\\n{body}"."""
    id: Text | None = None
    """The column carried as `id`; when absent, a column named `id` if there is one."""
    keep: tuple[Text, ...] | dict[Text, KeepType] = ()
    """Columns (or Hive partition keys) carried to the output; a mapping gives their types."""
    limit: Count | None = None
    """Embed only the first n rows: a trial, and the output says so."""
    max_text_bytes: Count = 32 << 20
    """A longer text is set aside as a dead letter before it is tokenized."""

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        return _refuse_credentials(uri)

    @property
    def keep_types(self) -> dict[str, str | None]:
        """Kept columns in output order, each with its configured type or None."""
        if isinstance(self.keep, Mapping):
            return dict(self.keep)
        return dict.fromkeys(self.keep)


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


class RemoteConfig(Section):
    """A hosted model behind an OpenAI-compatible API, with `encoder.backend: remote`."""

    base_url: Text
    """What stands before `/embeddings`, such as `https://api.openai.com/v1`. The texts are sent there. Identity unless
    `service` is given."""
    api_key_env: Annotated[str, Field(json_schema_extra={"pattern": _VARIABLE.pattern})] | None = None
    """The environment variable with the key, on every node and where the command runs; never the key itself."""
    api_key_file: Annotated[str, Field(json_schema_extra={"pattern": "^[/~]"})] | None = None
    """The file with the key, on every node and where the command runs."""
    service: Text | None = None
    """Your own name for what answers there; it stands for `base_url` in the output's identity, which may then move."""
    reply_model: Text | None = None
    """The model's name in replies, where it is not `encoder.model`, alone or with a version after it."""
    dimensions: Count | None = None
    """Numbers a vector, for models that let one choose; the model's own when absent."""
    max_chars: Count | None = None
    """Characters of prompt and text that are sent; `text.long` says what becomes of longer ones. When absent, a text
    that is too long for the API is a dead letter."""
    max_batch_items: Annotated[int, Field(gt=0, le=2048, strict=True)] = 256
    """Texts a request at the most."""
    max_batch_tokens: Count = 300_000
    """Tokens a request at the most, estimated at one for every two bytes."""
    concurrency: Annotated[int, Field(gt=0, le=256, strict=True)] = 8
    """Requests at a time, of each replica."""
    timeout_seconds: Annotated[float, Field(gt=0, strict=True)] = 60.0
    """How long a request may take."""
    price_per_million_tokens: Annotated[float, Field(ge=0, strict=True)] | None = None
    """In any currency; with it, reports and `embatch plan` tell the cost, and `limits.max_cost` has a meaning."""

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE.fullmatch(name):
            msg = "write the name of an environment variable, in capitals; the key itself never stands in a job"
            raise ValueError(msg)
        return name

    @field_validator("api_key_file")
    @classmethod
    def _path(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith(("/", "~")):
            msg = "write the whole path of a file, from / or ~; the key itself never stands in a job"
            raise ValueError(msg)
        return path

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = _web_address(_refuse_credentials(url))
        if parts is None:
            msg = "write an address such as https://api.openai.com/v1"
            raise ValueError(msg)
        if parts.query or parts.fragment or parts.path.rstrip("/").endswith("/embeddings"):
            msg = "write only what stands before /embeddings, without a query"
            raise ValueError(msg)
        return parts._replace(netloc=parts.netloc.lower(), path=parts.path.rstrip("/")).geturl()

    def identity(self) -> dict[str, Any]:
        """Return what decides the vectors."""
        return {
            "service": self.service or self.base_url,
            "reply_model": self.reply_model,
            "dimensions": self.dimensions,
            "max_chars": self.max_chars,
        }


class EncoderConfig(Section):
    """The model and everything about it that changes the vectors."""

    model: Text
    """A hub id, a folder, a URI (`s3://models/gte-small/`), `packaged:all-MiniLM-L6-v2`, or `hashing:64` for tests;
    with `backend: remote` the API's name of it, such as `text-embedding-3-small`."""
    revision: str | None = None
    """The hub revision; when absent, the current commit is pinned in the plan."""
    prompt: PromptConfig | None = None
    """Put before each text; a bare string is its text."""
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
        return _refuse_credentials(model)

    @field_validator("prompt", mode="before")
    @classmethod
    def _bare_string(cls, prompt: object) -> object:
        return {"text": prompt} if isinstance(prompt, str) else prompt

    def cost(self, tokens: int) -> float | None:
        """Return what a hosted model takes for so many tokens; None where the job names no price."""
        price = None if self.remote is None else self.remote.price_per_million_tokens
        return None if price is None else tokens * price / 1e6


class TextConfig(Section):
    """What happens to a text that does not fit."""

    long: Literal["truncate", "reject"] = "truncate"
    """`truncate` embeds the beginning and marks the row; `reject` makes it a dead letter."""


class OutputConfig(Section):
    """Where the shards go and how large they are."""

    uri: Text
    """Local folder or `s3://` prefix of this job alone; `{ds}`: the day."""
    unit_rows: Count | Literal["auto"] = "auto"
    """Rows a unit (one shard each); `auto` is a static function of model and device."""
    unit_bytes: Annotated[int, Field(ge=1024, strict=True)] = 64 << 20
    """Input bytes a unit at the most."""
    vectors: VectorKind = "float32"
    """How vectors are stored: 4, 2 or 1 bytes a number, or `binary`, its sign alone, a bit. The last three by one
    calibration for the whole job, from a sample of its rows."""

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        return _refuse_credentials(uri)


class LimitsConfig(Section):
    """When a run gives up; never part of the output's identity."""

    max_dead_rate: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.001
    """Dead letters to rows at the most (empty texts apart); above it exit 3 and no manifest."""
    stall_seconds: Annotated[float, Field(gt=0, strict=True)] = 900.0
    """Exit 7 when nothing moved for so long."""
    unit_attempts: Count = 3
    """How often a unit may lose its worker before the run ends and names it."""
    deadline: Annotated[str, Field(json_schema_extra={"pattern": f"^{_DURATION.pattern}$"})] | None = None
    """End the run so long after its command began: `90s`, `45m`, `1h30m`, `1d`. Exit 8; the same command continues."""
    max_tokens: Count | None = None
    """End the run when it has encoded so many tokens; at most the two units a replica has in flight come on top. Exit
    8; the same command continues, with as many again."""
    max_cost: Annotated[float, Field(gt=0, strict=True)] | None = None
    """End the run when the whole output, earlier runs included, has cost so much by
    `encoder.remote.price_per_million_tokens`; what is in flight comes on top. Exit 8; a higher limit continues."""
    grace_seconds: Annotated[float, Field(ge=0, strict=True)] = 25.0
    """How long units in flight may go on after a signal or one of the three limits above; then exit 8."""

    @field_validator("deadline", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        if value is None or (isinstance(value, str) and _seconds(value)):
            return value
        msg = "write a duration, such as 90s, 45m, 2h or 1h30m"
        raise ValueError(msg)

    @property
    def deadline_s(self) -> int | None:
        """The deadline in seconds after the command began."""
        return None if self.deadline is None else _seconds(self.deadline)


class ReplicaRange(Section):
    """Bounds between which a pool of replicas grows and shrinks with its work, on clusters that add and take nodes."""

    min: Count
    """Replicas to begin with, and the fewest."""
    max: Count
    """The most."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            msg = f"min is {self.min}, above max, {self.max}"
            raise ValueError(msg)
        return self


_REPLICA_KINDS = {int: "a number", dict: "a range", ReplicaRange: "a range", str: "a word"}


def _kind_of_replicas(value: object) -> str:
    return _REPLICA_KINDS.get(type(value), "a number")


Replicas = Annotated[
    Annotated[Count, Tag("a number")]
    | Annotated[ReplicaRange, Tag("a range")]
    | Annotated[Literal["auto"], Tag("a word")],
    Discriminator(_kind_of_replicas),
]
"""Told apart by what is written, so that an error is about that."""


class ClusterConfig(Section):
    """The Ray that does the work; never part of the output's identity."""

    address: str = "auto"
    """`auto`: RAY_ADDRESS if set, else a local Ray of this run; `local`; or an address."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Must be given on a cluster that is not local."""
    replicas: Replicas = "auto"
    """Copies of the encoder, or `{min: …, max: …}`; `auto` by the devices or cores that are there, and memory."""
    gpus_per_replica: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """Share of a GPU that a replica takes: 0.5 puts two on each."""
    accelerator_type: Text | None = None
    """Only GPUs of this type, as Ray names it: `H100`, `L4`, …"""
    labels: dict[Text, Text] = {}
    """Only nodes with these Ray labels hold replicas: `{ray.io/market-type: spot}`; values may be `in(a,b)`, `!a`."""


class JobConfig(Section):
    """One embatch job."""

    version: Literal[1] = 1
    """Of the job file's format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", json_schema_extra=_NAME_IN_A_FILE)] = (
        "embatch"
    )
    """For people; not part of the output's identity; `{ds}`: the day."""
    input: InputConfig
    encoder: EncoderConfig
    output: OutputConfig
    text: TextConfig = TextConfig()
    limits: LimitsConfig = LimitsConfig()
    cluster: ClusterConfig = ClusterConfig()


def load_job(path: Path | None, overrides: Sequence[str] = (), day: date | None = None) -> JobConfig:
    """Read a job file, apply `section.key=value` overrides, and put the day for `{ds}`.

    Raises:
        ConfigError: the file cannot be read or parsed, a key is unknown or has a wrong value, or one of `{ds}` and
            the day is there without the other.
    """
    return parse_job(read_values(path, overrides, day))


def parse_job(values: Mapping[str, Any]) -> JobConfig:
    """Validate plain values into a job.

    Raises:
        ConfigError: naming the first wrong key by its path, with the nearest valid key.
    """
    try:
        job = JobConfig.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        key = _key_path(found[0]["loc"])
        raise ConfigError(key, _reason([detail for detail in found if _key_path(detail["loc"]) == key])) from None
    _check_remote(job)
    return job


_OF_ANY_MODEL = ("model", "prompt", "backend", "remote")
"""Keys of the encoder that a hosted model can heed."""


def _check_remote(job: JobConfig) -> None:
    """Refuse what a hosted model cannot heed, and what means nothing without one.

    Raises:
        ConfigError: naming the key.
    """
    encoder, remote = job.encoder, job.encoder.remote
    if job.limits.max_cost is not None and (remote is None or not remote.price_per_million_tokens):
        raise ConfigError("limits.max_cost", "needs encoder.remote.price_per_million_tokens, above 0")
    if (encoder.backend == "remote") != (remote is not None):
        missing = "encoder.backend" if remote else "encoder.remote"
        raise ConfigError(missing, "encoder.backend: remote and encoder.remote.base_url belong together; give both")
    if remote is None:
        return
    if remote.api_key_env and remote.api_key_file:
        raise ConfigError("encoder.remote.api_key_file", "give this or api_key_env, not both")
    for key, field in EncoderConfig.model_fields.items():
        if key not in _OF_ANY_MODEL and getattr(encoder, key) != field.default:
            reason = "means nothing to a hosted model (encoder.backend: remote); leave it out"
            raise ConfigError(f"encoder.{key}", reason)
    if job.cluster.device == "cuda":
        raise ConfigError("cluster.device", "a hosted model (encoder.backend: remote) needs no GPU here; set cpu")


def _key_path(loc: tuple[int | str, ...]) -> str:
    """Return the key an error is about; what follows a key in pydantic's path names types and places in it."""
    model: type[Section] | None = JobConfig
    parts = []
    for part in loc:
        if model is None:
            break
        if part in _REPLICA_KINDS.values():
            continue
        parts.append(str(part))
        model = _section_at(model, str(part))
    return ".".join(parts) or "job"


def _reason(details: Sequence[Mapping[str, Any]]) -> str:
    """Say what is wrong with one key; where it may be of several types, one detail each."""
    first = details[0]
    if first["type"] == "extra_forbidden":
        *section, key = map(str, first["loc"])
        known = _valid_keys(section)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; valid here: {', '.join(known)}"
    if first["type"] == "missing":
        return "is required"
    messages = (str(detail["msg"]).removeprefix("Value error, ") for detail in details)
    said = ", or ".join(dict.fromkeys(f"{message[0].lower()}{message[1:]}" for message in messages))
    if first["loc"][:2] == ("encoder", "remote") and not isinstance(first["input"], int | float):
        return said  # what stands there by mistake may be a key of the API
    return f"{said} (got {shown(first['input'])})"


def _valid_keys(sections: Sequence[str]) -> list[str]:
    model: type[Section] | None = JobConfig
    for part in sections:
        model = _section_at(model, part) if model else None
    return list(model.model_fields) if model else []


def _section_at(model: type[Section], key: str) -> type[Section] | None:
    field = model.model_fields.get(key)
    kinds = _annotations(field.annotation) if field else []
    return next((kind for kind in kinds if issubclass(kind, Section)), None)


def _annotations(annotation: Any) -> list[type]:
    """Return the types that a key may have, out of unions and what is said beside them."""
    if isinstance(annotation, type):
        return [annotation]
    return [kind for option in get_args(annotation) for kind in _annotations(option)]


def _seconds(duration: str) -> int:
    """Return the seconds of a duration; 0 where it is none."""
    match = _DURATION.fullmatch(duration)
    parts = zip(match.groups("0s"), (86_400, 3600, 60, 1), strict=True) if match else ()
    return sum(int(part[:-1]) * seconds for part, seconds in parts)


def _web_address(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:  # a port that is none
        return None
    return parts if whole else None


def _refuse_credentials(uri: str) -> str:
    for protocol, user in USER_INFO.findall(uri):
        if ":" in user or protocol.lower() not in _CONTAINER_PROTOCOLS:
            msg = "credentials do not belong in a URI; set them in the environment"
            raise ValueError(msg)
    return uri
