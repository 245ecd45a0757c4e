"""Where the output goes and in which form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config.section import Count, Section, Text, refuse_credentials

VectorKind = Literal["float32", "float16", "int8", "binary"]


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
        return refuse_credentials(uri)
