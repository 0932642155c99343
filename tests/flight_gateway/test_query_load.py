"""Queries made to hurt: each is answered or refused, in bounded memory, while others are served as ever."""

import json
import resource
import threading
from typing import Any

import grpc
import pyarrow as pa
import pytest

from lakehouse.catalog.query.grammar import MAX_CONDITIONS, MAX_WILDCARD_CONDITIONS
from tests.flight_gateway.raw_client import RawClient

SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("x", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("axes", pa.list_(pa.float64())),
    ]
)
CATASTROPHIC = {"$match": "*a" * 127 + "*b"}
MOST_MEMORY_KB = 512 << 10


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"k": found}
    return found


@pytest.fixture(scope="module")
def lake(raw: RawClient) -> RawClient:
    """Sequences with long texts, deep and wide metadata."""
    metadata = {
        "k": "a" * 100_000,
        "deep": nested(400),
        "wide": {f"x{number}": number for number in range(1500)},
        "list": [[number, [number]] for number in range(200)],
    }
    rows = [{"timestamp_ns": t, "x": float(t), "label": "a" * 20_000, "axes": [1.0] * 50} for t in range(20)]
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    for number in range(5):
        topic = raw.new_topic(f"loaded-{number}", "a", ontology_tag="Loaded", user_metadata=metadata)
        raw.upload(topic, batch, schema=SCHEMA)
    return raw


def on_topics(conditions: dict[str, Any]) -> dict[str, Any]:
    return {"topic": {"name": {"$eq": "a"}, "user_metadata": conditions}}


ANSWERED: dict[str, Any] = {
    "a megabyte of names": {"sequence": {"name": {"$in": [f"s-{number:014}" for number in range(50_000)]}}},
    "a megabyte of metadata": on_topics({"k": {"$in": [f"{number:016}" for number in range(50_000)]}}),
    "a megabyte of texts in rows": {"ontology": {"Loaded.label": {"$in": [f"{n:016}" for n in range(50_000)]}}},
    "as many conditions on elements as allowed": {
        "ontology": {f"Loaded.axes[{number}]": {"$gt": 2} for number in range(MAX_CONDITIONS)}
    },
    "as many conditions on metadata as allowed": on_topics(
        {f"wide.x{number}": {"$neq": number} for number in range(MAX_CONDITIONS - 1)}
    ),
    "as many wildcards as allowed": on_topics(
        {f"**.k{number}": CATASTROPHIC for number in range(MAX_WILDCARD_CONDITIONS)}
    ),
    "wildcards upon wildcards": on_topics({".".join(["**", "*"] * 31) + f".k{n}": {"$ex": None} for n in range(8)}),
    "a catastrophic pattern on everything": on_topics({"**": CATASTROPHIC}),
    "a catastrophic pattern on rows": {"ontology": {"Loaded.label": CATASTROPHIC}},
    "a catastrophic pattern on names": {"sequence": {"name": {"$match": "*[a-z]" * 42 + "!"}}},
}
REFUSED: dict[str, bytes] = {
    "10,000 conditions": json.dumps({"ontology": {f"Loaded.a{n}": {"$eq": n} for n in range(10_000)}}).encode(),
    "10,000 wildcards": json.dumps(on_topics({f"**.a{n}": {"$eq": n} for n in range(10_000)})).encode(),
    "one wildcard too many": json.dumps(
        on_topics({f"*.a{n}": {"$eq": n} for n in range(MAX_WILDCARD_CONDITIONS + 1)})
    ).encode(),
    "1,000 levels": json.dumps({"ontology": {"Loaded.x": {"$eq": nested(900)}}}).encode(),
    "100,000 levels": b'{"sequence": ' * 100_000 + b"1" + b"}" * 100_000,
    "a megabyte of one pattern": json.dumps({"sequence": {"name": {"$match": "*a" * 500_000}}}).encode(),
    "a megabyte of one path": json.dumps(on_topics({"a." * 500_000 + "b": {"$eq": 1}})).encode(),
}


def test_hostile_queries_leave_others_unaffected(lake: RawClient) -> None:
    """While each of them is worked on, somebody else gets right answers again and again, none late."""
    harmless = {"sequence": {"name": {"$match": "loaded-[0-3]"}}, "ontology": {"Loaded.x": {"$between": [18.5, 30]}}}
    expected = [f"loaded-{number}" for number in range(4)]
    finished = threading.Event()
    answers: list[Any] = []
    trouble: list[Any] = []

    def ask_harmless() -> None:
        somebody = RawClient(lake.port)
        while not finished.is_set():
            try:
                # The client's deadline, not a measurement: nobody may be made to wait for others to finish.
                found = [item["sequence"] for item in somebody.action("query", harmless)["items"]]
            except grpc.RpcError as error:
                trouble.append(error)
            else:
                answers.append(found)
        somebody.close()

    def ask_hostile(bodies: list[bytes], codes: list[Any]) -> None:
        attacker = RawClient(lake.port)
        for body in bodies:
            try:
                codes.append(attacker.action("query", body)["items"])
            except grpc.RpcError as error:
                codes.append(error.code())
        attacker.close()

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bystander = threading.Thread(target=ask_harmless)
    bystander.start()
    outcomes: dict[str, list[Any]] = {"answered": [], "refused": []}
    attackers = [
        threading.Thread(
            target=ask_hostile, args=([json.dumps(each).encode() for each in ANSWERED.values()], outcomes["answered"])
        ),
        threading.Thread(target=ask_hostile, args=(list(REFUSED.values()), outcomes["refused"])),
    ]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        attacker.join()
    finished.set()
    bystander.join()
    for name, outcome in zip(ANSWERED, outcomes["answered"], strict=True):
        assert outcome == [], name
    for name, outcome in zip(REFUSED, outcomes["refused"], strict=True):
        assert outcome is grpc.StatusCode.INVALID_ARGUMENT, name
    assert not trouble
    assert len(answers) >= len(ANSWERED) / 2
    assert all(found == expected for found in answers)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < MOST_MEMORY_KB
