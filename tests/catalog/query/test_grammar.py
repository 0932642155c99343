"""What a query request may look like, and what is refused."""

from typing import Any

import pytest

from lakehouse.catalog.errors import BadRequestError
from lakehouse.catalog.query.conditions import Condition, FieldCondition, FieldPath, Operator, Quantifier
from lakehouse.catalog.query.grammar import MAX_CONDITIONS, TextField, parse_query


def test_a_whole_request_becomes_conditions() -> None:
    query = parse_query(
        {
            "sequence": {
                "name": {"$match": "drive_*"},
                "created_at_ns": {"$between": [1, 2]},
                "user_metadata": {"vehicle.id": {"$eq": "v7"}, "tags[*]": {"$in": ["rain", "snow"]}},
            },
            "topic": {"ontology_tag": {"$eq": "IMU"}, "user_metadata": {"rate": {"$ex": None}}},
            "ontology": {"IMU.acceleration.x": {"$gt": 1.0}, "IMU.timestamp_ns": {"$between": [1000, 990000]}},
        }
    )
    assert query.sequence.texts == ((TextField.NAME, Condition(Operator.MATCH, "drive_*")),)
    assert query.sequence.created_at == (Condition(Operator.BETWEEN, (1, 2)),)
    assert [(path.text, condition) for path, condition in query.sequence.user_metadata] == [
        ("vehicle.id", Condition(Operator.EQUAL, "v7")),
        ("tags[*]", Condition(Operator.IN, ("rain", "snow"))),
    ]
    assert query.topic.texts == ((TextField.ONTOLOGY_TAG, Condition(Operator.EQUAL, "IMU")),)
    assert [condition for _, condition in query.topic.user_metadata] == [Condition(Operator.EXISTS, None)]
    assert query.fields == (
        FieldCondition(FieldPath("IMU", ("acceleration", "x")), Condition(Operator.GREATER, 1.0)),
        FieldCondition(FieldPath("IMU", ("timestamp_ns",)), Condition(Operator.BETWEEN, (1000, 990000))),
    )
    assert not query.include_timestamp_range


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"sequence": {}},
        {"sequence": None, "topic": {"user_metadata": {}}, "ontology": {}},
        {"ontology": {"include_timestamp_range": True}},
        {"sequence": {"naem": {"$eq": "x"}}, "unknown": 5},
    ],
)
def test_a_request_without_conditions_is_empty(request_: dict[str, Any]) -> None:
    assert parse_query(request_).is_empty


def test_several_operators_on_one_field_all_count() -> None:
    query = parse_query({"ontology": {"A.b": {"$gt": 1, "$lt": 2}}, "topic": {"name": {"$match": "a*", "$neq": "ab"}}})
    assert [each.condition.operator for each in query.fields] == [Operator.GREATER, Operator.LESS]
    assert len(query.topic.texts) == 2


@pytest.mark.parametrize("operator", ["$ex", "$nex"])
def test_existence_may_be_written_as_a_bare_text(operator: str) -> None:
    bare = parse_query({"topic": {"user_metadata": {"rate": operator}}})
    assert bare == parse_query({"topic": {"user_metadata": {"rate": {operator: None}}}})


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("IMU.timestamp_ns", FieldPath("IMU", ("timestamp_ns",))),
        ("Joy.axes[0]", FieldPath("Joy", ("axes",), 0, 0)),
        ("Joy.axes[007]", FieldPath("Joy", ("axes",), 0, 7)),
        ("A.b[?].c.d", FieldPath("A", ("b", "c", "d"), 0, Quantifier.ANY)),
        ("A.b.c[!]", FieldPath("A", ("b", "c"), 1, Quantifier.ALL)),
        ("A.b c-d.é", FieldPath("A", ("b c-d", "é"))),
    ],
)
def test_field_paths(text: str, path: FieldPath) -> None:
    assert parse_query({"ontology": {text: {"$eq": 1}}}).fields[0].path == path


def test_an_index_beyond_any_list_is_accepted() -> None:
    (field,) = parse_query({"ontology": {f"A.b[{'9' * 400}]": {"$eq": 1}}}).fields
    assert field.path.specifier == 2**31 - 1


BAD_FIELD_PATHS = [
    *("", "IMU", "IMU.", ".x", "IMU..x", "IMU.x."),
    *("A.b[x]", "A.b[-1]", "A.b[", "A.b]", "A.b[]", "A.b[0", "A.[0]", "A.b[*]", "A.b[0]c", "A.b[ 0]", "A.b[\u0661]"),
    *("A.b[0][1]", "A.b[?].c[!]", "A.b[0].c[x]"),
    "A." + "b" * 2000,
]


@pytest.mark.parametrize("text", BAD_FIELD_PATHS)
def test_malformed_field_paths_are_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse_query({"ontology": {text: {"$eq": 1}}})


BAD_METADATA_PATHS = [
    "",
    ".",
    "a.",
    ".a",
    "a..b",
    "a[x]",
    "a[-1]",
    "a[",
    "a]",
    "[0]",
    "a[0]b",
    "a[]",
    "a[?]",
    "a" * 2000,
]


@pytest.mark.parametrize("text", BAD_METADATA_PATHS)
@pytest.mark.parametrize("section", ["sequence", "topic"])
def test_malformed_metadata_paths_are_refused(section: str, text: str) -> None:
    with pytest.raises(BadRequestError):
        parse_query({section: {"user_metadata": {text: {"$ex": None}}}})


ANYWHERE = [
    {},
    None,
    5,
    "$eq",
    [],
    {"$equals": 1},
    {"eq": 1},
    {"$eq": 1, "$oops": 2},
    {"$eq": None},
    {"$eq": {"a": 1}},
    {"$neq": None},
    {"$lt": True},
    {"$gt": None},
    {"$geq": [1]},
    {"$between": 5},
    {"$between": []},
    {"$between": [1]},
    {"$between": [1, 2, 3]},
    {"$between": [2, 1]},
    {"$between": ["b", "a"]},
    {"$between": [1, "2"]},
    {"$between": [True, False]},
    {"$between": [None, 1]},
    {"$outside": [2, 1]},
    {"$outside": {"min": 1, "max": 2}},
    {"$in": []},
    {"$in": 5},
    {"$in": "abc"},
    {"$in": [1, "a"]},
    {"$in": [1, True]},
    {"$in": [None]},
    {"$in": [[1]]},
    {"$match": ""},
    {"$match": 5},
    {"$match": None},
    {"$match": "[a"},
    {"$match": "x" * 257},
    {"$ex": True},
    {"$nex": 0},
    {"$eq": float("nan")},
    {"$lt": float("inf")},
    {"$eq": 1 << 20000},
]


@pytest.mark.parametrize("operators", ANYWHERE)
@pytest.mark.parametrize(
    "place", [("ontology", "A.b"), ("sequence", "user_metadata", "a"), ("topic", "user_metadata", "a")], ids=".".join
)
def test_malformed_operators_are_refused_everywhere(place: tuple[str, ...], operators: object) -> None:
    request: Any = operators
    for key in reversed(place):
        request = {key: request}
    with pytest.raises(BadRequestError) as caught:
        parse_query(request)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("field", ["sequence.name", "topic.name", "topic.ontology_tag", "topic.serialization_format"])
@pytest.mark.parametrize(
    "operators", [*ANYWHERE, {"$lt": "a"}, {"$between": ["a", "b"]}, {"$eq": 1}, {"$in": [1]}, {"$neq": True}]
)
def test_names_and_tags_are_compared_with_texts_only(field: str, operators: object) -> None:
    section, name = field.split(".")
    with pytest.raises(BadRequestError):
        parse_query({section: {name: operators}})


@pytest.mark.parametrize("operators", [{"$eq": "1"}, {"$geq": "2024-01-01"}, {"$in": ["1"]}, {"$eq": True}, {"$ex": 1}])
def test_creation_times_are_compared_with_numbers_only(operators: object) -> None:
    with pytest.raises(BadRequestError):
        parse_query({"sequence": {"created_at_ns": operators}})


@pytest.mark.parametrize(
    "request_",
    [
        {"sequence": []},
        {"topic": "x"},
        {"ontology": 5},
        {"sequence": {"user_metadata": []}},
        {"ontology": {"include_timestamp_range": "yes"}},
        {"ontology": {"include_timestamp_range": 1}},
    ],
)
def test_sections_must_be_objects(request_: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        parse_query(request_)


def test_lists_are_operands_of_equality_on_rows_only() -> None:
    (field,) = parse_query({"ontology": {"Joy.axes": {"$eq": [1, 2.5]}}}).fields
    assert field.condition == Condition(Operator.EQUAL, (1, 2.5))
    parse_query({"ontology": {"Joy.axes": {"$neq": []}}})
    parse_query({"ontology": {"Joy.axes": {"$eq": [0] * 1024}}})
    for bad in ({"$eq": [0] * 1025}, {"$lt": [1]}, {"$eq": [[1]]}, {"$eq": [None]}):
        with pytest.raises(BadRequestError):
            parse_query({"ontology": {"Joy.axes": bad}})
    for path in ("Joy.axes[0]", "Joy.axes[?]", "Joy.axes[!]"):
        with pytest.raises(BadRequestError, match="list"):
            parse_query({"ontology": {path: {"$eq": [1]}}})
    with pytest.raises(BadRequestError):
        parse_query({"sequence": {"user_metadata": {"a": {"$eq": [1]}}}})


@pytest.mark.parametrize(
    "bounds",
    [["9.5", "10.5"], ["2024-01-01T01:00:00+02:00", "2024-01-01T00:00:00+00:00"], ["PT9S", "PT10S"], ["a", "b"]],
)
def test_texts_on_rows_may_be_in_order_as_numbers_moments_or_durations(bounds: list[str]) -> None:
    parse_query({"ontology": {"A.b": {"$between": bounds}}})


@pytest.mark.timeout(120)
def test_too_many_conditions_are_refused_at_once() -> None:
    parse_query({"ontology": {f"A.b{number}": {"$eq": 1} for number in range(MAX_CONDITIONS)}})
    for request in (
        {"ontology": {f"A.b{number}": {"$eq": 1} for number in range(10_000)}},
        {"sequence": {"user_metadata": {f"a{number}": {"$eq": 1} for number in range(10_000)}}},
        {"topic": {"user_metadata": {f"a{number}": "$ex" for number in range(MAX_CONDITIONS + 1)}}},
        {
            "topic": {"user_metadata": {f"a{number}": "$ex" for number in range(MAX_CONDITIONS)}},
            "sequence": {"name": {"$eq": "a"}},
        },
    ):
        with pytest.raises(BadRequestError, match="at most"):
            parse_query(request)


def test_errors_about_huge_requests_are_short() -> None:
    nested: Any = 1
    for _ in range(900):
        nested = {"$eq": nested}
    for request in (
        {"ontology": {"A.b": nested}},
        {"sequence": {"name": {"$" + "x" * 10**6: 1}}},
        {"topic": {"name": nested}},
    ):
        with pytest.raises(BadRequestError) as caught:
            parse_query(request)
        assert len(caught.value.message) <= 1000
