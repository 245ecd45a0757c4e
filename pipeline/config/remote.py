"""A hosted model's API."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator

from pipeline.config.section import Count, Section, Text, refuse_credentials

_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
"""No name with small letters, so that a key that was pasted there is not taken for one."""


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
        parts = _web_address(refuse_credentials(url))
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


def _web_address(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:  # a port that is none
        return None
    return parts if whole else None
