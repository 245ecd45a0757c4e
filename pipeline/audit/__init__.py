"""An audit of an output that trusts nothing the writer says.

Everything is derived again from the stored plan, the shards' bytes and the source files, by code that the
writer does not use: nothing here imports readers, encoders, shard building or the commit protocol.
"""

from __future__ import annotations

from pipeline.audit.findings import VerifyReport
from pipeline.audit.output import verify
from pipeline.audit.series import SeriesReport, verify_series

__all__ = ["SeriesReport", "VerifyReport", "verify", "verify_series"]
