"""The job file: one frozen pydantic model, built once at the edge and passed down by section.

Unknown keys are refused with their path and the nearest valid key. The environment is never
read here; it holds credentials only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from pipeline.exceptions import ConfigError

MAX_JOB_FILE_BYTES = 1 << 20
MAX_YAML_ALIASES = 16

KeepType = Literal["string", "int32", "int64", "float32", "float64", "bool"]


class Section(BaseModel):
    """A frozen group of keys that refuses any key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class InputConfig(Section):
    """Where the corpus is and which columns matter."""

    uri: str
    """File, folder or glob of Parquet or JSON Lines (plain, gzip or zstd), on any fsspec protocol."""
    format: Literal["auto", "parquet", "jsonl"] = "auto"
    """`auto` goes by the suffix: .parquet, .pq, .jsonl, .ndjson, and .gz or .zst after them."""
    text: str = "text"
    """The column to embed, or a template over columns such as "{title}\\n{body}"."""
    id: str | None = None
    """The column carried as `id`; when absent, a column named `id` if there is one."""
    keep: tuple[str, ...] | dict[str, KeepType] = ()
    """Columns (or Hive partition keys) carried to the output; a mapping gives their types."""
    limit: PositiveInt | None = None
    """Embed only the first n rows: a trial, and the output says so."""
    max_text_bytes: PositiveInt = 32 << 20
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
    """What is put before each text; exactly one of the four."""

    text: str | None = None
    """The prompt itself."""
    name: str | None = None
    """A prompt that the model's own files name, such as `query`."""
    template: str | None = None
    """A prompt built per row from columns: "Represent the {domain} text: "."""
    column: str | None = None
    """A column that holds each row's prompt."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("text", "name", "template", "column") if getattr(self, key) is not None]
        if len(given) != 1:
            msg = f"give exactly one of text, name, template, column (got {', '.join(given) or 'none'})"
            raise ValueError(msg)
        return self

    @property
    def per_row(self) -> bool:
        """Whether each row brings its own prompt."""
        return self.template is not None or self.column is not None


class EncoderConfig(Section):
    """The model and everything about it that changes the vectors."""

    model: str
    """A hub id, a folder, a URI (`s3://models/gte-small/`), `packaged:all-MiniLM-L6-v2`, or `hashing:64` for tests."""
    revision: str | None = None
    """The hub revision; when absent, the current commit is pinned in the plan."""
    prompt: PromptConfig | None = None
    """Put before each text; a bare string is its text."""
    prompt_pooling: Literal["auto", "include", "exclude", "instructor"] = "auto"
    """Whether pooling sees the prompt's tokens, or leaves them out, or does so by INSTRUCTOR's rule; `auto` goes by
    the model's files, then its name."""
    pooling: Literal["auto", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = "auto"
    """`auto` takes the model's own; needed where its folder does not say."""
    max_seq_length: PositiveInt | None = None
    """Tokens a text, special tokens included; the model's own when absent."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the forward; pooling is always float32. `auto` is resolved once and recorded in the plan."""
    max_batch_tokens: PositiveInt | Literal["auto"] = "auto"
    """Padded tokens a batch; `auto` is a static default, recorded in the plan."""
    convert_pickle: bool = False
    """Convert weights published only as pickles to safetensors, once a node, in a process of its own."""

    @field_validator("model")
    @classmethod
    def _no_credentials(cls, model: str) -> str:
        return _refuse_credentials(model)

    @field_validator("prompt", mode="before")
    @classmethod
    def _bare_string(cls, prompt: object) -> object:
        return {"text": prompt} if isinstance(prompt, str) else prompt


class TextConfig(Section):
    """What happens to a text that does not fit."""

    long: Literal["truncate", "reject"] = "truncate"
    """`truncate` embeds the beginning and marks the row; `reject` makes it a dead letter."""


class OutputConfig(Section):
    """Where the shards go and how large they are."""

    uri: str
    """Folder or prefix of this job alone, on any fsspec protocol with create-only writes."""
    unit_rows: PositiveInt | Literal["auto"] = "auto"
    """Rows a unit (one shard each); `auto` is a static function of model and device."""
    unit_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Input bytes a unit at the most."""

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        return _refuse_credentials(uri)


class LimitsConfig(Section):
    """When a run gives up; never part of the output's identity."""

    max_dead_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Dead letters to rows at the most (empty texts apart); above it exit 3 and no manifest."""
    stall_seconds: Annotated[float, Field(gt=0)] = 900.0
    """Exit 7 when nothing moved for so long."""
    unit_attempts: PositiveInt = 3
    """How often a unit may lose its worker before the run ends and names it."""


class ClusterConfig(Section):
    """The Ray that does the work; never part of the output's identity."""

    address: str = "auto"
    """`auto`: RAY_ADDRESS if set, else a local Ray of this run; `local`; or an address."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Must be given on a cluster that is not local."""
    replicas: PositiveInt | Literal["auto"] = "auto"
    """Copies of the encoder; `auto` by devices or cores, and memory."""


class JobConfig(Section):
    """One embatch job."""

    version: Literal[1] = 1
    """Of the job file's format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "embatch"
    """For people; not part of the output's identity."""
    input: InputConfig
    encoder: EncoderConfig
    output: OutputConfig
    text: TextConfig = TextConfig()
    limits: LimitsConfig = LimitsConfig()
    cluster: ClusterConfig = ClusterConfig()


def load_job(path: Path | None, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a job file and apply `section.key=value` overrides.

    Raises:
        ConfigError: the file cannot be read or parsed, or a key is unknown or has a wrong value.
    """
    values = _parse_yaml(path) if path is not None else {}
    for override in overrides:
        _apply_override(values, override)
    return parse_job(values)


def parse_job(values: Mapping[str, Any]) -> JobConfig:
    """Validate plain values into a job.

    Raises:
        ConfigError: naming the first wrong key by its path, with the nearest valid key.
    """
    try:
        return JobConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(_key_path(first["loc"]), _reason(first["loc"], first)) from None


def _key_path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "job"


def _reason(loc: tuple[int | str, ...], detail: Mapping[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _valid_keys(loc[:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; valid here: {', '.join(_valid_keys(loc[:-1]))}"
        return f"unknown key{hint}"
    if detail["type"] == "missing":
        return "is required"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]} (got {detail['input']!r})"


def _valid_keys(section: tuple[int | str, ...]) -> list[str]:
    model: Any = JobConfig
    for part in section:
        field = model.model_fields.get(str(part))
        nested = [kind for kind in _annotations(field.annotation) if issubclass(kind, Section)] if field else []
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _annotations(annotation: Any) -> list[type]:
    options = getattr(annotation, "__args__", (annotation,))
    return [kind for kind in options if isinstance(kind, type)]


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(override, "write an override as section.key=value")
    *sections, last = key.split(".")
    for part in sections:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(key, f"{part!r} is not a section")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(key, f"is not YAML: {error}") from None


class _JobFileLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and many aliases (alias bombs)."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_YAML_ALIASES:
                msg = f"more than {MAX_YAML_ALIASES} aliases"
                raise yaml.YAMLError(msg)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - overrides
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                msg = f"duplicate key {key!r} in line {key_node.start_mark.line + 1}"
                raise yaml.YAMLError(msg)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse_yaml(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_JOB_FILE_BYTES:
            raise ConfigError(str(path), f"a job file of {size} bytes; at most {MAX_JOB_FILE_BYTES} are read")
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_JobFileLoader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(str(path), f"is not a valid job file: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(str(path), "must hold a mapping of sections")
    return values


def _refuse_credentials(uri: str) -> str:
    authority = uri.partition("://")[2].partition("/")[0]
    if "@" in authority:
        msg = "credentials do not belong in a URI; set them in the environment"
        raise ValueError(msg)
    return uri
