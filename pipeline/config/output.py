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
    series: Text | None = None
    """Folder or `s3://` prefix above `uri` for a growing input: of the outputs below it, each takes the files that none
    before it has taken."""
    vectors: VectorKind = "float32"
    """How vectors are stored: 4, 2 or 1 bytes a number, or `binary`, its sign alone, a bit. The last three by one
    calibration for the whole job, from a sample of its rows."""

    @field_validator("uri", "series")
    @classmethod
    def _no_credentials(cls, uri: str | None) -> str | None:
        return None if uri is None else refuse_credentials(uri)

    @property
    def place(self) -> str | None:
        """Where the output lies below its series, without slashes at the ends; None where it does not."""
        above = f"{(self.series or '').rstrip('/')}/"
        below = self.uri.removeprefix(above).strip("/")
        return below if self.series and self.uri.startswith(above) and below else None
