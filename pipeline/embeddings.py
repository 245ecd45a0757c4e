"""Read a finished output back: the manifest decides what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import plan as plans
from pipeline.checkpoint import commits, manifest
from pipeline.exceptions import InterruptedRunError
from pipeline.storage import Store, open_store


def read_embeddings(
    output_uri: str, columns: Sequence[str] | None = None, *, allow_partial: bool = False
) -> Iterator[pa.Table]:
    """Yield one table a shard, in unit order, page checksums verified.

    Args:
        output_uri: an embatch output.
        columns: names to read; all when None. `embedding` is FixedSizeList<float32>[dimension].
        allow_partial: read what is committed of an output that is not complete.

    Raises:
        ConfigError: no embatch output is there.
        InterruptedRunError: it is not complete and `allow_partial` was not given.
    """
    store = open_store(output_uri)
    for key in _shard_keys(store, output_uri, allow_partial=allow_partial):
        data = pa.BufferReader(store.read(key))
        yield pq.ParquetFile(data, page_checksum_verification=True).read(columns)


def _shard_keys(store: Store, output_uri: str, *, allow_partial: bool) -> list[str]:
    head = manifest.load_head(store)
    if head is not None:
        return [entry.key for entry in manifest.load_entries(store, head)]
    plan = plans.require(store)
    if not allow_partial:
        raise InterruptedRunError(f"{output_uri!r} is not complete; allow_partial=True reads what is there")
    present = commits.committed(store, plan.plan_id)
    return [present[unit].key for unit in sorted(present)]
