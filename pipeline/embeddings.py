"""Read a finished output back, and encode what is to be compared with it: the manifest and the plan decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from pipeline import plan as plans
from pipeline import shard
from pipeline.calibration import from_footer
from pipeline.checkpoint import commits, manifest
from pipeline.encoders.loading import LoadedEncoder, load_encoder
from pipeline.exceptions import ConfigError, DamagedOutputError, InterruptedRunError, ModelChangedError
from pipeline.storage import Store, open_store


def read_embeddings(
    output_uri: str, columns: Sequence[str] | None = None, *, allow_partial: bool = False, decode: bool = False
) -> Iterator[pa.Table]:
    """Yield one table a shard, in unit order, page checksums verified; of a series, output after output.

    Args:
        output_uri: an embatch output, or a series of them.
        columns: names to read; all when None. `embedding` is FixedSizeList<float32>[dimension], or with
            `output.vectors` <float16>[dimension], <int8>[dimension] or <uint8>[dimension / 8].
        allow_partial: read what is committed of an output that is not complete.
        decode: give float32[dimension] whatever is stored; of binary vectors their signs, scaled to length 1.

    Raises:
        ConfigError: no embatch output is there.
        InterruptedRunError: it is not complete and `allow_partial` was not given.
        DamagedOutputError: the manifest or a shard is missing or cannot be read.
    """
    store = open_store(output_uri)
    names = plans.outputs(store)
    for name in names:
        yield from read_embeddings(f"{store.uri}/{name}", columns, allow_partial=allow_partial, decode=decode)
    for key in [] if names else _shard_keys(store, output_uri, allow_partial=allow_partial):
        data = store.read(key)
        if data is None:
            raise DamagedOutputError(output_uri, [f"{key} is missing"])
        table = shard.read(data, key, columns)
        yield _decoded(table) if decode and "embedding" in table.column_names else table


def encoder_of(
    output_uri: str,
    *,
    prompt: str | Mapping[str, str] | None = None,
    brackets: Literal["none", "query", "document"] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> LoadedEncoder:
    """Load the encoder that an output was made with, for queries and other texts to be compared with its rows.

    The same model files, compared by sha256, and the same keys; precision too, unless this is another kind of device
    and the job left it open. Vectors are float32, whatever `output.vectors` says.

    Args:
        output_uri: an embatch output, complete or not, or a series of them.
        prompt: as `encoder.prompt`, such as `"query: "` or `{"name": "query"}`; None: the output's own.
        brackets: as `encoder.brackets`, of SGPT; None: the output's own.
        device: where to encode.

    Raises:
        ConfigError: no embatch output is there, it is of a hosted model, or the prompt does not fit the model.
        ModelChangedError: the model's files are others than the plan's.
        ModelError: the model's files or the device cannot be used.
    """
    store = open_store(output_uri)
    plan = plans.require(next((open_store(f"{store.uri}/{name}") for name in plans.outputs(store)), store))
    planned, keys = plan.resolved["encoder"], dict(plan.requested["encoder"])
    if keys.get("remote"):
        reason = "is of a hosted model, whose key is in no output; use load_encoder(model, backend='remote', remote=…)"
        raise ConfigError("OUTPUT", f"{output_uri!r} {reason}")
    keys["revision"] = planned["revision"] or keys["revision"]
    given: dict[str, Any] = {"prompt": prompt, "brackets": brackets}
    keys |= {key: value for key, value in given.items() if value is not None}
    encoder = load_encoder(device=device, **keys)
    changed = [name for name, digest in encoder.spec.files.items() if planned["files"].get(name) != digest]
    if changed:
        raise ModelChangedError(planned["model"], encoder.spec.folder, changed)
    return encoder


def _decoded(table: pa.Table) -> pa.Table:
    """Decode vectors by what the shard's own metadata says of them."""
    metadata = table.schema.metadata or {}
    footer = {name.decode().removeprefix("embatch."): value.decode() for name, value in metadata.items()}
    rule, index = from_footer(footer), table.column_names.index("embedding")
    codes = table["embedding"].combine_chunks()
    values = codes.flatten().to_numpy(zero_copy_only=False).reshape(len(table), codes.type.list_size)
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), rule.dimension)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rule.decode(values).reshape(-1)), type=kind)
    return table.set_column(index, pa.field("embedding", kind), vectors)


def _shard_keys(store: Store, output_uri: str, *, allow_partial: bool) -> list[str]:
    head = manifest.load_head(store)
    if head is not None:
        return [entry.key for entry in manifest.load_entries(store, head)]
    plan = plans.require(store)
    if not allow_partial:
        raise InterruptedRunError(f"{output_uri!r} is not complete; allow_partial=True reads what is there")
    present = commits.committed(store, plan.plan_id)
    return [present[unit].key for unit in sorted(present)]
