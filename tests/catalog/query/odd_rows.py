"""Rows full of what breaks comparisons, and conditions on them."""

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.field_paths import parse_field_path

TAG = "Odd"
ITEM = pa.struct([("v", pa.int64()), ("name", pa.string())])
STATE = pa.struct([("x", pa.float64()), ("n", pa.int32()), ("readings", pa.list_(pa.float32()))])
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("tiny", pa.int8()),
        pa.field("long", pa.int64()),
        pa.field("huge", pa.uint64()),
        pa.field("half", pa.float16()),
        pa.field("single", pa.float32()),
        pa.field("double", pa.float64()),
        pa.field("flag", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("label", pa.dictionary(pa.int8(), pa.string())),
        pa.field("money", pa.decimal128(9, 2)),
        pa.field("day", pa.date32()),
        pa.field("clock", pa.time64("ns")),
        pa.field("moment", pa.timestamp("ns")),
        pa.field("instant", pa.timestamp("ms", "UTC")),
        pa.field("lasted", pa.duration("ms")),
        pa.field("state", STATE),
        pa.field("items", pa.list_(ITEM)),
        pa.field("words", pa.large_list(pa.string())),
        pa.field("triple", pa.list_(pa.float64(), 3)),
        pa.field("facts", pa.map_(pa.string(), pa.float64())),
        pa.field("blob", pa.binary()),
    ]
)
UNIT_NS = {"day": 86_400 * 10**9, "clock": 1, "moment": 1, "instant": 10**6, "lasted": 10**6}

FLOATS = [0.0, -0.0, 1.5, -1.5, 0.1, math.nan, math.inf, -math.inf, 5e-324, -5e-324, 1e300, 3.0, 2.0**53, 2.0**53 + 2]
LONGS = [
    0,
    1,
    -1,
    3,
    2**53,
    2**53 + 1,
    2**53 - 1,
    -(2**53) - 1,
    2**63 - 1,
    -(2**63),
    2**62 + 1,
    1_700_000_000_000_000_001,
]
TEXTS = [
    "", "a", "ab", "aB", "é", "\U0010ffff", "\ud7ff", "\ue000", "a\x00", "a" * 16, "a" * 17, "a" * 16 + "b", "z" * 40,
    "\U0010ffff" * 17, "line\nbreak", "cat-12", "cat-1x",
]  # fmt: skip
NUMBERS = [
    *LONGS,
    2**64 - 1,
    2**63,
    2**64,
    -(2**70),
    10**400,
    *(x for x in FLOATS if not math.isnan(x)),
    0.5,
    1e19,
    127,
]
TEMPORALS = {
    "day": [0, -1, 19_000, 20_000, 365],
    "clock": [0, 1, 86_399_999_999_999, 43_200_000_000_001],
    "moment": [0, -1, 1, 1_700_000_000_000_000_001, 1_700_000_000_000_000_000, 86_400_000_000_000],
    "instant": [0, -1, 1_700_000_000_000, 1_700_000_000_001],
    "lasted": [0, -5, 1500, 86_400_000],
}


def make_rows(generator: random.Random, count: int) -> list[dict[str, Any]]:
    """Raw rows: times as counts of their unit. One call draws from few values, so that bounds have something to say."""

    def drawn(pool: list[Any], share: int = 3) -> Callable[[], Any]:
        few = generator.sample(pool, min(share, len(pool)))
        nulls = generator.choice([0.0, 0.3, 1.0, 0.0])
        return lambda: None if generator.random() < nulls else generator.choice(few)

    def listed(element: Callable[[], Any], sizes: tuple[int, ...]) -> Callable[[], Any]:
        few = generator.sample(sizes, min(2, len(sizes)))
        maybe = drawn([True], 1)
        return lambda: None if maybe() is None else [element() for _ in range(generator.choice(few))]

    double, single, long, text = drawn(FLOATS), drawn([_single(x) for x in FLOATS]), drawn(LONGS), drawn(TEXTS)
    tiny, maybe = drawn([0, 1, -128, 127, 3]), drawn([True], 1)
    readings, words = listed(single, (0, 1, 2, 5)), listed(text, (0, 1, 3))
    items = listed(lambda: None if maybe() is None else {"v": long(), "name": text()}, (0, 1, 2, 4))
    facts = listed(lambda: (generator.choice(["a", "b", "c.d", "a" * 20]), double()), (0, 1, 2))
    makers: dict[str, Callable[[], Any]] = {
        "tiny": tiny,
        "long": long,
        "huge": drawn([0, 1, 2**63, 2**64 - 1, 2**53 + 1]),
        "half": drawn([0.0, -0.0, 1.5, math.nan, math.inf, float(np.float16(0.1))]),
        "single": single,
        "double": double,
        "flag": drawn([True, False], 1 + generator.randrange(2)),
        "text": text,
        "label": text,
        "money": drawn([Decimal("0.00"), Decimal("0.10"), Decimal("-9999999.99"), Decimal("12.34"), Decimal("3.00")]),
        **{name: drawn(pool) for name, pool in TEMPORALS.items()},
        "state": lambda: None if maybe() is None else {"x": double(), "n": tiny(), "readings": readings()},
        "items": items,
        "words": words,
        "triple": listed(double, (3,)),
        "facts": lambda: _unique_keys(facts()),
        "blob": drawn([b"", b"x"]),
    }
    base = generator.choice([0, -(10**18), 1_700_000_000_000_000_000])
    return [
        {"timestamp_ns": base + generator.randrange(40), **{name: make() for name, make in makers.items()}}
        for _ in range(count)
    ]


def _single(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _unique_keys(entries: list[tuple[str, Any]] | None) -> Any:
    return None if entries is None else list(dict(entries).items())


def to_batch(rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """The rows as they are uploaded."""
    columns = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if field.name in UNIT_NS:
            width = pa.int32() if field.name == "day" else pa.int64()
            columns.append(pa.array(values, width).view(field.type))
        elif field.name == "half":
            columns.append(pa.array([None if v is None else np.float16(v) for v in values], field.type))
        elif field.name == "label":
            columns.append(pa.array(values, pa.string()).dictionary_encode().cast(field.type))
        else:
            columns.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


# ---- conditions, with operands as JSON would bring them ----

PATHS = {
    "number": [
        "tiny", "long", "huge", "half", "single", "double", "money", "timestamp_ns", "state.x", "state.n", "flag",
        "state.readings[0]", "state.readings[1]", "state.readings[?]", "state.readings[!]", "items[?].v", "items[!].v",
        "items[0].v", "triple[2]", "triple[?]", "facts.a", "facts.c.d", "facts.absent", "absent", "state.absent",
        "long.x",
    ],
    "text": ["text", "label", "words[?]", "words[!]", "words[0]", "items[?].name", "items[!].name", "double",
             "items[9].name"],
    "numbers": ["state.readings", "triple"],
    "texts": ["words"],
    "unsupported": ["state", "facts", "blob", "items[?]", "blob.x"],
    **{name: [name] for name in UNIT_NS},
}  # fmt: skip
COMPARISONS = [each for each in Operator if each not in (Operator.MATCH, Operator.EXISTS, Operator.NOT_EXISTS)]


def make_condition(generator: random.Random) -> FieldCondition:
    kind = generator.choice(["number"] * 6 + ["text"] * 3 + list(PATHS))
    path = parse_field_path(f"{TAG}.{generator.choice(PATHS[kind])}")
    operator = generator.choice([*COMPARISONS, Operator.EXISTS, Operator.NOT_EXISTS])
    if kind in ("numbers", "texts"):
        pool = [*FLOATS, None, 1, "a"] if kind == "numbers" else [*TEXTS, 1]
        operator = generator.choice([Operator.EQUAL, Operator.NOT_EQUAL, Operator.EXISTS, Operator.NOT_EXISTS])
        few = generator.sample(pool, 2)
        operand: Any = tuple(generator.choice(few) for _ in range(generator.choice([0, 1, 2, 3, 5])))
        return FieldCondition(path, Condition(operator, operand))
    if kind == "text" and generator.random() < 0.15:
        pattern = generator.choice(["*", "a*", "?", "*b", "cat-#*", "a" * 16 + "*", "ab", "*\n*", "[a-z]*", "é"])
        return FieldCondition(path, Condition(Operator.MATCH, pattern))
    pool = operand_pool(kind)
    if operator in (Operator.EXISTS, Operator.NOT_EXISTS):
        return FieldCondition(path, Condition(operator, None))
    if operator in (Operator.BETWEEN, Operator.OUTSIDE):
        pair = generator.choice(pool), generator.choice(pool)
        return FieldCondition(path, Condition(operator, tuple(sorted(pair, key=lambda each: _order(kind, each)))))
    if operator is Operator.IN:
        return FieldCondition(path, Condition(operator, tuple(generator.choices(pool, k=generator.choice([1, 2, 5])))))
    wrong = generator.random() < 0.05
    return FieldCondition(path, Condition(operator, generator.choice([True, "a", 1] if wrong else pool)))


def operand_pool(kind: str) -> list[Any]:
    if kind == "text":
        return TEXTS
    if kind in UNIT_NS:
        counts = [count + step for count in TEMPORALS[kind] for step in (0, 0, 1, -1)]
        texts = [_written(kind, count * UNIT_NS[kind]) for count in counts]
        return [text for text in texts if text is not None] + [str(count * UNIT_NS[kind]) for count in counts]
    return NUMBERS


def _order(kind: str, operand: Any) -> Any:
    return nanoseconds(operand) if kind in UNIT_NS else operand


_meaning: dict[str, int] = {}


def _written(kind: str, ns: int) -> str | None:
    """ISO 8601 text of a number of nanoseconds, remembered so that it is never parsed here."""
    if kind == "clock" and not 0 <= ns < 86_400 * 10**9:
        return None
    seconds, fraction = divmod(ns, 10**9)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    tail = f".{fraction:09d}".rstrip("0") if fraction else ""
    if kind == "lasted":
        seconds, fraction = divmod(abs(ns), 10**9)
        text = f"{'-' if ns < 0 else ''}PT{seconds}.{fraction:09d}S"
    elif kind == "clock":
        text = f"{moment:%H:%M:%S}{tail}"
    elif kind == "day" and ns % (86_400 * 10**9) == 0:
        text = f"{moment:%Y-%m-%d}"
    else:
        text = f"{moment + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}{tail}+02:00"
    assert _meaning.setdefault(text, ns) == ns
    return text


def nanoseconds(text: str) -> int | None:
    """What an operand for a temporal column means; None: nothing."""
    if text in _meaning:
        return _meaning[text]
    return int(text) if text.lstrip("-").isdigit() else None
