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
VECTOR_TYPES: dict[str, pa.DataType] = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "binary": pa.uint8(),
}
"""Of the elements of `embedding`, by `output.vectors`; an element of binary vectors holds eight numbers' signs."""
SIGNS = 8
RESERVED = ("id", "embedding", "n_tokens", "truncated", "source_file", "source_row")


def output_schema(keep: Mapping[str, pa.DataType], dimension: int, vectors: str = "float32") -> pa.Schema:
    """Build the schema of a shard.

    Raises:
        ConfigError: a kept column has the name of a column embatch writes, or the signs of vectors fill no whole bytes.
    """
    if vectors == "binary" and dimension % SIGNS:
        reason = f"binary packs {SIGNS} numbers into a byte, and {dimension} do not fill the last one"
        raise ConfigError("output.vectors", f"{reason}; set encoder.truncate_dim to a multiple of {SIGNS}")
    elements = dimension // SIGNS if vectors == "binary" else dimension
    for name in keep:
        if name in RESERVED:
            raise ConfigError("input.keep", f"{name!r} is a column embatch writes itself; rename it in the input")
    return pa.schema(
        [
            pa.field("id", pa.string()),
            *(pa.field(name, kind) for name, kind in keep.items()),
            pa.field("embedding", pa.list_(pa.field("element", VECTOR_TYPES[vectors], nullable=False), elements)),
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


def vectors_of(schema: pa.Schema) -> str:
    """Return how a schema stores vectors, in the words of `output.vectors`."""
    kind = schema.field("embedding").type.value_type
    return next(name for name, element in VECTOR_TYPES.items() if element == kind)


def bytes_a_vector(schema: pa.Schema) -> int:
    """Return what a row's vector takes before it is compressed."""
    kind = schema.field("embedding").type
    return int(kind.list_size) * int(kind.value_type.bit_width) // 8


def kept_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the kept columns of an output schema, in order."""
    return {field.name: field.type for field in schema if field.name not in RESERVED}


def encode_schema(schema: pa.Schema) -> str:
    """Serialize a schema to base64 text, for the plan."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode_schema(text: str) -> pa.Schema:
    """Read back what `encode_schema` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _base64_marks(text: bytes) -> list[bytes]:
    """Return what of a text's base64 form does not depend on its neighbours, at each of three alignments."""
    coded = [base64.b64encode(bytes(shift) + text) for shift in range(3)]
    return [mark[-(-shift * 8 // 6) : (shift + len(text)) * 8 // 6] for shift, mark in enumerate(coded)]


_EXTENSION_MARKS = _base64_marks(b"ARROW:extension:name")


def declares_extensions(footer: bytes) -> bool:
    """Tell whether a Parquet footer declares an Arrow extension type, at any depth of any column.

    It holds the Arrow schema in base64. To ask Arrow instead would be too late: it calls the code of registered
    types while it opens a file, and some unpickle the file's bytes when a column is converted.
    """
    return any(mark in footer for mark in _EXTENSION_MARKS)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type a kept column has in the output.

    Dictionaries are decoded, views and 64-bit offsets dropped, and all parts nullable: Arrow does not write a
    null struct whose fields are not.
    """
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return pa.binary()
    return _plain_nested(kind)


def _plain_nested(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_map(kind):
        key = _plain_field(kind.key_field).with_nullable(nullable=False)
        return pa.map_(key, _plain_field(kind.item_field), kind.keys_sorted)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(index)) for index in range(kind.num_fields)])
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type)).with_nullable(nullable=True).remove_metadata()
