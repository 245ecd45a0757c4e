"""embatch: sharded text corpora in, verified sharded embeddings out, resumable.

The public names are loaded when they are first used, so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.audit import verify as verify
    from pipeline.config import JobConfig as JobConfig
    from pipeline.dry_run import preview as preview
    from pipeline.embeddings import encoder_of as encoder_of
    from pipeline.embeddings import read_embeddings as read_embeddings
    from pipeline.encoders.loading import load_encoder as load_encoder
    from pipeline.job import RunOptions as RunOptions
    from pipeline.job import run as run
    from pipeline.report import RunReport as RunReport

_PUBLIC = {
    "JobConfig": "pipeline.config",
    "RunOptions": "pipeline.job",
    "RunReport": "pipeline.report",
    "encoder_of": "pipeline.embeddings",
    "load_encoder": "pipeline.encoders.loading",
    "preview": "pipeline.dry_run",
    "read_embeddings": "pipeline.embeddings",
    "run": "pipeline.job",
    "verify": "pipeline.audit",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
