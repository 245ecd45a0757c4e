"""Damaged Parquet is an error that names the file; extension types are refused before any of their code runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus.corpus_reading import look, read

from pipeline.corpus import parquet
from pipeline.exceptions import SourceReadError, SourceSchemaError
from pipeline.schema import declares_extensions

ROWS = 3000


def sound(**columns: object) -> bytes:
    sink = io.BytesIO()
    texts = [f"text number {row} of many" for row in range(ROWS)]
    table = pa.table({"text": texts, **columns})
    pq.write_table(table, sink, write_page_checksum=True, compression="none", use_dictionary=False, row_group_size=1000)
    return sink.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]


def with_footer_size(data: bytes, size: int) -> bytes:
    return data[:-8] + size.to_bytes(4, "little") + data[-4:]


DATA = sound()
FOOTER = int.from_bytes(DATA[-8:-4], "little")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"no parquet at all",
        DATA[: len(DATA) // 2],
        DATA[:-1],
        DATA[100:],
        flipped(DATA, -2),
        DATA[:-4] + b"PARE",
        with_footer_size(DATA, 0),
        with_footer_size(DATA, FOOTER - 9),
        with_footer_size(DATA, len(DATA)),
        with_footer_size(DATA, 2**32 - 1),
        DATA[: -8 - FOOTER] + bytes(FOOTER) + DATA[-8:],
    ],
    ids=[
        *("empty", "magic", "two magics", "other", "half", "one byte short", "no beginning", "flipped magic"),
        *("encrypted", "no footer", "short footer", "long footer", "huge footer", "zeros for a footer"),
    ],
)
def test_file_that_is_not_whole_is_an_error_that_names_it(tmp_path, data):
    (tmp_path / "bad.parquet").write_bytes(data)
    with pytest.raises(SourceReadError, match=r"'bad\.parquet': not readable as Parquet"):
        read(tmp_path)


@pytest.mark.parametrize("at", [200, 20_000, 60_000])
def test_flipped_bit_in_a_page_is_found_by_its_checksum(tmp_path, at):
    (tmp_path / "bad.parquet").write_bytes(flipped(DATA, at))
    assert look(tmp_path).slices[0].rows == ROWS
    with pytest.raises(SourceReadError, match=r"'bad\.parquet'"):
        read(tmp_path)


def test_row_counts_that_disagree_in_the_footer_are_refused(tmp_path):
    footer = DATA[-8 - FOOTER : -8]
    count = b"\x16" + varint(ROWS)  # field 3 of the footer: an i64, zigzag
    assert footer.count(count) == 1
    changed = footer.replace(count, b"\x16" + varint(ROWS + 500))
    (tmp_path / "bad.parquet").write_bytes(DATA[: -8 - FOOTER] + changed + DATA[-8:])
    with pytest.raises(SourceReadError, match="the footer counts 3500 rows, its row groups 3000"):
        look(tmp_path)


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte."""
    number, coded = number << 1, b""
    while number > 0x7F:
        number, coded = number >> 7, coded + bytes([number & 0x7F | 0x80])
    return coded + bytes([number])


def test_footer_over_the_cap_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_FOOTER_BYTES", 100)
    (tmp_path / "bad.parquet").write_bytes(DATA)
    with pytest.raises(SourceReadError, match=f"a footer of {FOOTER} bytes"):
        look(tmp_path)


def test_more_rows_than_any_file_has_are_not_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_ROWS", ROWS - 1)
    (tmp_path / "bad.parquet").write_bytes(DATA)
    with pytest.raises(SourceReadError, match="the footer declares 3000 rows"):
        look(tmp_path)


LOUD_NAME = "tests.loud_object"
"""Not the name of Ray's own pickling type, which a test before this one may have registered."""


class Loud(pa.ExtensionType):
    """Notes each time Arrow makes one from a file, which is when its code would run."""

    made: ClassVar[list[bytes]] = []

    def __init__(self, storage: pa.DataType | None = None) -> None:
        super().__init__(storage or pa.binary(), LOUD_NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return b"cos\nsystem\n"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Loud:
        cls.made.append(serialized)
        return cls(storage)


@pytest.fixture
def loud() -> Iterator[type[Loud]]:
    """An extension type that some library has registered."""
    pa.register_extension_type(Loud())
    Loud.made.clear()
    yield Loud
    pa.unregister_extension_type(LOUD_NAME)


def extension(values: list[bytes]) -> pa.Array:
    return pa.ExtensionArray.from_storage(Loud(), pa.array(values))


def crafted(nesting: str) -> pa.Array:
    array = extension([b"pickle"] * ROWS)
    if nesting == "list":
        return pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), array)
    if nesting == "struct":
        return pa.StructArray.from_arrays([array], ["deep"])
    return array


@pytest.mark.parametrize("nesting", ["top", "list", "struct"])
@pytest.mark.parametrize("keep", [[], ["x"]])
def test_extension_types_are_refused_before_their_code_runs(tmp_path, loud, nesting, keep):
    (tmp_path / "bad.parquet").write_bytes(sound(x=crafted(nesting)))
    loud.made.clear()
    with pytest.raises(SourceSchemaError, match=r"'bad\.parquet': the file declares Arrow extension types"):
        read(tmp_path, keep=keep)
    assert loud.made == []


def test_the_trap_of_these_tests_works(tmp_path, loud):
    (tmp_path / "bad.parquet").write_bytes(sound(x=crafted("struct")))
    loud.made.clear()
    pq.read_metadata(tmp_path / "bad.parquet")
    assert loud.made


def test_extension_types_that_nobody_registered_are_refused(tmp_path):
    field = pa.field("x", pa.binary(), metadata={"ARROW:extension:name": "some.type", "ARROW:extension:metadata": ""})
    schema = pa.schema([pa.field("text", pa.string()), field])
    pq.write_table(pa.table([["a"], [b"b"]], schema=schema), tmp_path / "bad.parquet")
    with pytest.raises(SourceSchemaError, match="extension types"):
        read(tmp_path)


@pytest.mark.parametrize("before", range(7))
def test_extension_names_are_found_at_each_base64_alignment(before):
    coded = base64.b64encode(b"\xff" * before + b"ARROW:extension:name" + b"\xff" * before)
    assert declares_extensions(b"footer " + coded + b" end")
    assert not declares_extensions(base64.b64encode(b"\xff" * before + b"ARROW:extension:nam" + b"\xff" * before))
