"""Units are filled in order: large files are cut, small ones share, and what cannot be entered is grouped."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.reader import Inspection
from pipeline.plan.units import GROUP_UNITS, pack
from pipeline.records import Format, Slice, SourceFile

MUCH = 1 << 40


def inspection(name: str, rows: list[int], *, enterable: bool = True, row_bytes: int = 1) -> Inspection:
    source = SourceFile(path=name, size=1, etag="e", format=Format.JSONL)
    slices = [
        Slice(source=source, first_row=sum(rows[:index]), rows=count, size_bytes=count * row_bytes)
        for index, count in enumerate(rows)
    ]
    return Inspection(columns={}, slices=slices, enterable=[enterable or index == 0 for index in range(len(rows))])


def packed(*files: Inspection, rows: int = 10, size: int = MUCH) -> list[list[tuple[str, int, int]]]:
    return [
        [(piece.source.path, piece.first_row, piece.rows) for piece in unit.slices] for unit in pack(files, rows, size)
    ]


def test_small_files_share_a_unit_up_to_its_rows():
    files = [inspection(name, [4]) for name in "abcde"]
    assert packed(*files) == [[("a", 0, 4), ("b", 0, 4)], [("c", 0, 4), ("d", 0, 4)], [("e", 0, 4)]]


def test_small_files_share_a_unit_up_to_its_bytes():
    files = [inspection(name, [4], row_bytes=100) for name in "abc"]
    assert packed(*files, size=800) == [[("a", 0, 4), ("b", 0, 4)], [("c", 0, 4)]]


def test_file_of_several_slices_shares_with_none():
    assert packed(inspection("a", [1]), inspection("b", [10, 10, 2]), inspection("c", [1])) == [
        [("a", 0, 1)],
        [("b", 0, 10)],
        [("b", 10, 10)],
        [("b", 20, 2)],
        [("c", 0, 1)],
    ]


def test_single_slice_over_the_caps_is_a_unit_of_its_own():
    assert packed(inspection("a", [1]), inspection("b", [11]), inspection("c", [1])) == [
        [("a", 0, 1)],
        [("b", 0, 11)],
        [("c", 0, 1)],
    ]


def test_files_without_rows_are_packed_and_none_is_left_out():
    assert packed(inspection("a", [0]), inspection("b", [10]), inspection("c", [0])) == [
        [("a", 0, 0), ("b", 0, 10), ("c", 0, 0)]
    ]
    assert pack([], 10, MUCH) == []


def test_slices_that_cannot_be_entered_join_a_group_of_limited_length():
    units = pack([inspection("a", [1] * (2 * GROUP_UNITS + 1), enterable=False), inspection("b", [1])], 10, MUCH)
    assert [unit.group for unit in units] == [0] * GROUP_UNITS + [1] * GROUP_UNITS + [2, 3]


def test_slices_that_can_be_entered_are_groups_of_their_own():
    units = pack([inspection("a", [1, 1]), inspection("b", [1, 1])], 10, MUCH)
    assert [unit.group for unit in units] == [0, 1, 2, 3]


files = st.lists(st.tuples(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.booleans()), max_size=8).map(
    lambda drawn: [inspection(str(index), rows, enterable=free) for index, (rows, free) in enumerate(drawn)]
)


@settings(max_examples=150, deadline=None)
@given(files=files, rows=st.integers(1, 15), size=st.integers(1, 20))
def test_every_slice_is_in_one_unit_in_order(files, rows, size):
    units = pack(files, rows, size)
    assert [piece for unit in units for piece in unit.slices] == [piece for each in files for piece in each.slices]
    assert [unit.number for unit in units] == list(range(len(units)))
    assert all(len(unit.slices) == 1 or (unit.rows <= rows and unit.size_bytes <= size) for unit in units)
    groups = [unit.group for unit in units]
    assert groups == sorted(groups)
    assert set(groups) == set(range(len(set(groups))))
    assert max((groups.count(group) for group in set(groups)), default=0) <= GROUP_UNITS
