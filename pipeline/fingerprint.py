"""Canonical JSON, content digests and readable differences: what makes two outputs equal.

Nothing here depends on the clock, the host, or the memory layout of Arrow arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

ENCODING_VERSION = 3
"""Raised by hand when our own code changes vectors for the same identity."""


def canonical_json(value: Any) -> bytes:
    """Serialize with sorted keys, no spaces and UTF-8, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Hash bytes to 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def content_digest(table: pa.Table) -> str:
    """Hash a table's columns, values and order, whatever its chunks, offsets and padding."""
    digest = hashlib.sha256()
    for name in table.column_names:
        array = table.column(name).combine_chunks()
        digest.update(f"{name}\0{len(array)}\0".encode())
        for part in _array_bytes(array):
            digest.update(part)
    return digest.hexdigest()


def combine_digests(digests: Iterable[str]) -> str:
    """Hash shard digests, given in unit order, to the digest of the output."""
    return sha256("\n".join(digests).encode())


def differences(planned: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name each leaf that differs as `path: planned -> now`, in order of the path."""
    before, after = dict(_leaves(planned)), dict(_leaves(now))
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if canonical_json(before.get(key)) != canonical_json(after.get(key))  # 1 == True, and absent means null
    ]


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else "absent"


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _array_bytes(array: pa.Array) -> Iterable[bytes]:
    """Yield an array's validity and values in one fixed little-endian form."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _array_bytes(array.dictionary_decode())
        return
    if pa.types.is_map(kind):
        array = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
    yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes()
    if _is_binary(kind):
        yield from _binary_bytes(array.cast(pa.large_binary()))
    elif pa.types.is_fixed_size_list(kind):
        yield from _array_bytes(array.flatten())  # leaves out what lies under a null
    elif any(is_kind(kind) for is_kind in _LISTS):
        lengths = array.value_lengths().fill_null(-1)
        yield lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        yield from _array_bytes(array.flatten())
    elif pa.types.is_struct(kind):
        for index, child in enumerate(array.flatten()):
            yield f"{kind.field(index).name}\0".encode()
            yield from _array_bytes(child)
    elif not pa.types.is_null(kind):
        yield _primitive_bytes(array)


_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
    pa.types.is_map,
)


def _is_binary(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or kind in (pa.string_view(), pa.binary_view())
    )


def _binary_bytes(array: pa.LargeBinaryArray) -> Iterable[bytes]:
    filled = array.fill_null(b"")
    offsets = np.frombuffer(filled.buffers()[1], dtype="<i8")[filled.offset : filled.offset + len(filled) + 1]
    yield np.diff(offsets).tobytes()
    values = filled.buffers()[2]
    if values is not None and len(filled):
        yield bytes(values[int(offsets[0]) : int(offsets[-1])])


def _primitive_bytes(array: pa.Array) -> bytes:
    kind = array.type
    if pa.types.is_boolean(kind):
        return np.packbits(array.fill_null(pa.scalar(value=False)).to_numpy(zero_copy_only=False)).tobytes()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.ascontiguousarray(array.fill_null(0).to_numpy(zero_copy_only=False)).tobytes()
    if kind in (pa.date32(), pa.time32("s"), pa.time32("ms")):
        return _primitive_bytes(array.cast(pa.int32()))
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _primitive_bytes(array.cast(pa.int64()))
    return canonical_json([None if value is None else str(value) for value in array.to_pylist()])
