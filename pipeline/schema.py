"""Arrow schemas: what may come in, and the one schema every shard of an output has."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pyarrow as pa

from pipeline.exceptions import ConfigError

KEEP_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
RESERVED = ("id", "embedding", "n_tokens", "truncated", "source_file", "source_row")


def output_schema(keep: Mapping[str, pa.DataType], dimension: int) -> pa.Schema:
    """Build the schema of a shard.

    Raises:
        ConfigError: a kept column has the name of a column embatch writes.
    """
    for name in keep:
        if name in RESERVED:
            raise ConfigError("input.keep", f"{name!r} is a column embatch writes itself; rename it in the input")
    return pa.schema(
        [
            pa.field("id", pa.string()),
            *(pa.field(name, kind) for name, kind in keep.items()),
            pa.field("embedding", pa.list_(pa.field("element", pa.float32(), nullable=False), dimension)),
            pa.field("n_tokens", pa.int32()),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("source_file", pa.string(), nullable=False),
            pa.field("source_row", pa.int64(), nullable=False),
        ]
    )


DEAD_SCHEMA = pa.schema(
    [
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def kept_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the kept columns of an output schema, in order."""
    return {field.name: field.type for field in schema if field.name not in RESERVED}


def encode_schema(schema: pa.Schema) -> str:
    """Serialize a schema to base64 text, for the plan."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode_schema(text: str) -> pa.Schema:
    """Read back what `encode_schema` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def has_extension(kind: pa.DataType) -> bool:
    """Tell whether a type tree holds an extension type; some unpickle their file's bytes on conversion."""
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return has_extension(kind.value_type)
    return any(has_extension(kind.field(index).type) for index in range(kind.num_fields))


def field_has_extension(field: pa.Field) -> bool:
    """Tell the same for a field, also where the type is not registered and only metadata names it."""
    if field.metadata and b"ARROW:extension:name" in field.metadata:
        return True
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return has_extension(kind.value_type)
    return any(field_has_extension(kind.field(index)) for index in range(kind.num_fields))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type a kept column has in the output: dictionaries decoded, 64-bit offsets dropped."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return pa.binary()
    return kind
