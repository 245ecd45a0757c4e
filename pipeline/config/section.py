"""What all groups of keys have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.config.job_file import USER_INFO

Count = Annotated[int, Field(gt=0, strict=True)]
"""A number of something; strict, as `true` would else be 1."""
Text = Annotated[str, Field(min_length=1)]
_CONTAINER_PROTOCOLS = ("abfs", "abfss", "wasb", "wasbs", "adl")
"""On Azure a URI's user part names the container: abfs://container@account…/path."""


class Section(BaseModel):
    """A frozen group of keys that refuses any key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def refuse_credentials(uri: str) -> str:
    """Return a URI that names no user and password.

    Raises:
        ValueError: it does.
    """
    for protocol, user in USER_INFO.findall(uri):
        if ":" in user or protocol.lower() not in _CONTAINER_PROTOCOLS:
            msg = "credentials do not belong in a URI; set them in the environment"
            raise ValueError(msg)
    return uri
