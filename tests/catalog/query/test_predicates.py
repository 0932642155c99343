"""Single rules of comparisons on rows (protocol sections 12.6, 12.7, 17 and 21), and of bounds."""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.catalog.errors import BadRequestError
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.query.leaf_bounds import UNKNOWN, LeafBounds
from lakehouse.catalog.query.predicates import RowPredicate
from lakehouse.catalog.query.pruning import can_exclude, may_match
from lakehouse.ontology.arrow_iceberg import plan_storage


def asked(path: str, operator: str, operand: Any = None) -> FieldCondition:
    return FieldCondition(parse_field_path(f"Tag.{path}"), Condition(Operator(operator), operand))


def matching(values: pa.Array, operator: str, operand: Any = None, path: str = "v") -> list[int]:
    """Positions of the rows that match, the column being called `v`."""
    schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("v", values.type)])
    plan = plan_storage(schema)
    batch = pa.RecordBatch.from_arrays([pa.array(np.arange(len(values))), values], schema=schema)
    predicate = RowPredicate.compile([asked(path, operator, operand)], plan)
    return np.flatnonzero(predicate.mask(plan.to_storage(batch))).tolist()


class TestNumbers:
    def test_integers_beyond_doubles_are_compared_exactly(self) -> None:
        values = pa.array([2**53, 2**53 + 1, 2**63 - 1])
        assert matching(values, "$eq", 2**53 + 1) == [1]
        assert matching(values, "$gt", float(2**53)) == [1, 2]
        assert matching(values, "$eq", float(2**63)) == []
        assert matching(values, "$lt", 1e300) == [0, 1, 2]
        assert matching(values, "$neq", 2**64) == [0, 1, 2]

    def test_integers_equal_no_fraction(self) -> None:
        values = pa.array([-1, 0, 1], pa.int8())
        assert matching(values, "$eq", 0.5) == []
        assert matching(values, "$geq", -0.5) == [1, 2]
        assert matching(values, "$eq", 1.0) == [2]

    def test_doubles_are_compared_exactly_with_large_integers(self) -> None:
        values = pa.array([2.0**53, 2.0**53 + 2])
        assert matching(values, "$gt", 2**53 + 1) == [1]
        assert matching(values, "$eq", 2**53 + 1) == []
        assert matching(values, "$lt", 10**400) == [0, 1]

    def test_single_floats_are_widened(self) -> None:
        values = pa.array([0.1], pa.float32())
        assert matching(values, "$eq", 0.1) == []
        assert matching(values, "$gt", 0.1) == [0]
        assert matching(values, "$eq", float(np.float32(0.1))) == [0]

    def test_large_unsigned_integers(self) -> None:
        values = pa.array([0, 2**63, 2**64 - 1], pa.uint64())
        assert matching(values, "$geq", 2**63) == [1, 2]
        assert matching(values, "$in", (2**64 - 1, 0, -1)) == [0, 2]

    def test_nan_only_differs(self) -> None:
        values = pa.array([math.nan, 1.0, None, math.inf])
        for operator, operand in (("$eq", 1), ("$leq", math.inf), ("$outside", (5, 6)), ("$between", (-1, 1))):
            assert 0 not in matching(values, operator, operand)
        assert matching(values, "$neq", 1) == [0, 3]
        assert matching(values, "$neq", math.nan) == [0, 1, 3]
        assert matching(values, "$eq", math.nan) == []

    def test_zero_has_no_sign(self) -> None:
        values = pa.array([-0.0, 0.0, 5e-324])
        assert matching(values, "$eq", 0) == [0, 1]
        assert matching(values, "$lt", 5e-324) == [0, 1]
        assert matching(values, "$gt", -0.0) == [2]

    def test_decimals_compare_with_numbers_and_texts(self) -> None:
        values = pa.array([Decimal("0.10"), Decimal("12.34")], pa.decimal128(9, 2))
        assert matching(values, "$eq", "0.1") == [0]
        assert matching(values, "$eq", 0.1) == []  # no double is exactly a tenth
        assert matching(values, "$gt", 12) == [1]

    def test_booleans_are_also_zero_and_one(self) -> None:
        values = pa.array([True, False, None])
        assert matching(values, "$eq", True) == [0]
        assert matching(values, "$eq", 0) == [1]
        assert matching(pa.array([1, 0]), "$eq", True) == []

    @given(
        st.lists(st.integers(-(2**63), 2**63 - 1)), st.one_of(st.integers(-(2**65), 2**65), st.floats(allow_nan=False))
    )
    def test_every_ordering_agrees_with_python(self, values: list[int], operand: float) -> None:
        column = pa.array(values, pa.int64())
        assert matching(column, "$lt", operand) == [i for i, value in enumerate(values) if value < operand]
        assert matching(column, "$geq", operand) == [i for i, value in enumerate(values) if value >= operand]
        assert matching(column, "$eq", operand) == [i for i, value in enumerate(values) if value == operand]


class TestTexts:
    def test_texts_are_ordered_by_code_point(self) -> None:
        values = pa.array(["\ue000", "\U00010000", "a", "", None])
        assert matching(values, "$gt", "\ue000") == [1]
        assert matching(values, "$leq", "a") == [2, 3]

    def test_a_text_never_compares_with_a_number(self) -> None:
        assert matching(pa.array(["1"]), "$eq", 1) == []
        assert matching(pa.array(["1"]), "$neq", 1) == []
        assert matching(pa.array([1]), "$eq", "1") == []

    def test_globs_are_anchored(self) -> None:
        values = pa.array(["cat-12", "cat-1x", "a cat-12", "line\nbreak"]).dictionary_encode()
        assert matching(values, "$match", "cat-##") == [0]
        assert matching(values, "$match", "*cat*") == [0, 1, 2]
        assert matching(values, "$match", "line*") == [3]
        assert matching(pa.array([1]), "$match", "*") == []

    def test_a_lone_surrogate_equals_nothing(self) -> None:
        assert matching(pa.array(["\ue000", "a"]), "$eq", "\ud800") == []
        assert matching(pa.array(["\ue000", "a"]), "$gt", "\ud800") == [0]


class TestTimes:
    def test_nanoseconds_count(self) -> None:
        values = pa.array([1_700_000_000_000_000_001, -1], pa.int64()).view(pa.timestamp("ns"))
        assert matching(values, "$eq", "2023-11-14T22:13:20.000000001Z") == [0]
        assert matching(values, "$gt", "2023-11-14T22:13:20") == [0]
        assert matching(values, "$lt", "1970-01-01") == [1]

    def test_offsets_are_instants(self) -> None:
        values = pa.array([1_700_000_000_000], pa.int64()).view(pa.timestamp("ms", "Europe/Rome"))
        assert matching(values, "$eq", "2023-11-14T23:13:20+01:00") == [0]
        assert matching(values, "$eq", "1700000000000000000") == [0]  # nanoseconds, as the client sends integers

    def test_a_date_is_its_midnight(self) -> None:
        values = pa.array([0, 1], pa.int32()).view(pa.date32())
        assert matching(values, "$eq", "1970-01-02") == [1]
        assert matching(values, "$lt", "1970-01-01T00:00:00.5") == [0]

    def test_times_of_day_and_durations(self) -> None:
        clock = pa.array([43_200_000], pa.int32()).view(pa.time32("ms"))
        assert matching(clock, "$eq", "12:00") == [0]
        assert matching(clock, "$lt", "12:00:00.000000001") == [0]
        lasted = pa.array([1500, -1500], pa.int64()).view(pa.duration("ms"))
        assert matching(lasted, "$eq", "PT1.5S") == [0]
        assert matching(lasted, "$eq", "-PT1.5S") == [1]

    @pytest.mark.parametrize("text", ["yesterday", "2023-13-01", "25:00", "", "1" * 5000, "2023-11-14T22:61:00"])
    def test_what_is_no_time_matches_nothing(self, text: str) -> None:
        assert matching(pa.array([0], pa.int64()).view(pa.timestamp("us")), "$neq", text) == []


class TestLists:
    VALUES = pa.array([[1.0, 2.0], [], None, [None, 3.0], [math.nan], [3.0, 3.0]], pa.list_(pa.float64()))

    @pytest.mark.parametrize(
        ("path", "operator", "operand", "expected"),
        [
            ("v[0]", "$geq", 1, [0, 5]),
            ("v[1]", "$geq", 1, [0, 3, 5]),
            ("v[7]", "$geq", 1, []),
            ("v[?]", "$gt", 2, [3, 5]),
            ("v[!]", "$gt", 2, [1, 5]),
            ("v[!]", "$neq", 2, [1, 4, 5]),
            ("v", "$eq", (1, 2), [0]),
            ("v", "$eq", (), [1]),
            ("v", "$neq", (1, 2), [1, 3, 4, 5]),
            ("v", "$eq", (math.nan,), []),
            ("v", "$eq", ("1", "2"), []),
            ("v", "$ex", None, [0, 1, 3, 4, 5]),
            ("v", "$nex", None, [2]),
        ],
    )
    @pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float32())])
    def test_specifiers(self, kind: pa.DataType, path: str, operator: str, operand: Any, expected: list[int]) -> None:
        assert matching(self.VALUES.cast(kind), operator, operand, path) == expected
        assert matching(self.VALUES.cast(kind).slice(1), operator, operand, path) == [i - 1 for i in expected if i]

    def test_a_whole_list_has_no_order(self) -> None:
        with pytest.raises(BadRequestError, match=r"\[\?\]"):
            matching(self.VALUES, "$gt", 1)

    def test_lists_of_lists_are_refused(self) -> None:
        with pytest.raises(BadRequestError, match="list of lists"):
            matching(pa.array([[[1]]]), "$gt", 1, "v[0]")

    def test_inside_structs_of_lists(self) -> None:
        item = pa.struct([("p", pa.struct([("x", pa.int32())])), ("other", pa.string())])
        values = pa.array([[{"p": {"x": 1}}, {"p": None}], [None], [{"p": {"x": 5}}]], pa.list_(item))
        assert matching(values, "$gt", 1, "v[?].p.x") == [2]
        assert matching(values, "$leq", 1, "v[0].p.x") == [0]
        assert matching(values, "$gt", 1, "v.p.x") == []

    def test_what_is_no_list_has_no_elements(self) -> None:
        assert matching(pa.array([1]), "$eq", 1, "v[0]") == []


class TestOtherColumns:
    def test_null_structs_hide_their_children(self) -> None:
        kind = pa.struct([("x", pa.int64())])
        child = pa.array([7, 7])
        values = pa.StructArray.from_arrays([child], fields=list(kind), mask=pa.array([True, False]))
        assert matching(values, "$eq", 7, "v.x") == [1]
        assert matching(values, "$nex", None, "v.x") == [0]

    def test_entries_of_maps(self) -> None:
        values = pa.array([[("a", 1), ("b.c", 2)], [], None, [("a", None)]], pa.map_(pa.string(), pa.int64()))
        assert matching(values, "$geq", 1, "v.a") == [0]
        assert matching(values, "$eq", 2, "v.b.c") == [0]
        assert matching(values, "$nex", None, "v.a") == [1, 2, 3]
        assert matching(values.slice(1), "$ex", None, "v.a") == []

    @pytest.mark.parametrize("operator", ["$eq", "$neq", "$ex", "$nex"])
    def test_structs_maps_and_blobs_never_match(self, operator: str) -> None:
        operand = None if operator.endswith("ex") else 1
        for values in (
            pa.array([{"x": 1}]),
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            pa.array([b"x"]),
        ):
            assert matching(values, operator, operand) == []

    def test_a_missing_column_only_does_not_exist(self) -> None:
        assert matching(pa.array([1, 2]), "$neq", 1, "other") == []
        assert matching(pa.array([1, 2]), "$nex", None, "other") == [0, 1]

    def test_the_row_time_is_a_column(self) -> None:
        assert matching(pa.array([5, 5, 5]), "$between", (1, 5), "timestamp_ns") == [1, 2]


class TestBounds:
    @staticmethod
    def may(kind: pa.DataType, condition: FieldCondition, *files: Sequence[Any]) -> list[bool]:
        schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("v", kind)])
        (compiled,) = RowPredicate.compile([condition], plan_storage(schema)).conditions
        assert can_exclude(compiled)
        return may_match(compiled, LeafBounds.of_values(compiled.column.storage_kind, files)).tolist()

    def test_unknown_bounds_keep_the_file(self) -> None:
        unknown = (None, None, UNKNOWN, UNKNOWN, UNKNOWN)
        assert self.may(pa.float64(), asked("v", "$gt", 5), unknown, (None, 4.0, 9, 0, 0), (0.0, None, 9, 0, 0)) == [
            True,
            False,
            True,
        ]

    def test_bounds_that_are_nan_are_no_bounds(self) -> None:
        assert self.may(pa.float64(), asked("v", "$gt", 5), (math.nan, math.nan, 9, 0, UNKNOWN)) == [True]

    def test_nan_differs_from_the_only_other_value(self) -> None:
        files = [(1.0, 1.0, 9, 0, nans) for nans in (0, 1, UNKNOWN)]
        assert self.may(pa.float64(), asked("v", "$neq", 1), *files) == [False, True, True]

    def test_nothing_but_nulls_and_nan(self) -> None:
        files = [(None, None, 9, 9, UNKNOWN), (None, None, 9, 4, 5), (None, None, 9, 4, 4)]
        assert self.may(pa.float64(), asked("v", "$lt", 5), *files) == [False, False, True]

    def test_truncated_texts(self) -> None:
        files = [(b"a" * 16, b"a" * 15 + b"b", 2, 0, UNKNOWN)]
        assert self.may(pa.string(), asked("v", "$eq", "a" * 16 + "z"), *files) == [True]
        assert self.may(pa.string(), asked("v", "$eq", "a" * 15 + "c"), *files) == [False]
        assert self.may(pa.string(), asked("v", "$match", "a" * 16 + "*"), *files) == [True]
        assert self.may(pa.string(), asked("v", "$match", "b*"), *files) == [False]

    def test_null_counts_answer_what_does_not_exist(self) -> None:
        files = [(1, 2, 9, nulls, UNKNOWN) for nulls in (0, 1, UNKNOWN)]
        assert self.may(pa.int64(), asked("v", "$nex"), *files) == [False, True, True]

    def test_all_elements_are_never_excluded(self) -> None:
        schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), ("v", pa.list_(pa.float64()))])
        for condition, expected in ((asked("v[!]", "$gt", 5), False), (asked("v[?]", "$gt", 5), True)):
            (compiled,) = RowPredicate.compile([condition], plan_storage(schema)).conditions
            assert can_exclude(compiled) is expected
