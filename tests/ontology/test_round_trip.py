import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lakehouse.ontology.arrow_iceberg import (
    StoragePlan,
    evolution,
    parquet_schema,
    plan_storage,
    topic_table_schema,
)
from lakehouse.ontology.registry import fingerprint, load_models, model_arrow_schema
from tests.ontology.lake import Lake, read_parquet, scan, write_parquet
from tests.ontology.random_arrow import LEAF_TYPES, logical, random_batch, upload_schemas

TIMESTAMP = pa.field("timestamp_ns", pa.int64(), nullable=False)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(tmp_path_factory.mktemp("lake"))


def assert_same_rows(
    plan: StoragePlan, stored: list[pa.RecordBatch], uploaded: list[pa.RecordBatch], lenient: bool = False
) -> None:
    """The stored batches, converted back, equal the uploaded ones in schema, values and order."""
    restored = [part for batch in stored for part in plan.from_storage_batches(batch)]
    for batch in restored:
        batch.validate(full=True)
        assert batch.schema.equals(plan.arrow_schema, check_metadata=True)
        assert [array.type for array in batch.columns] == plan.arrow_schema.types
    for i, name in enumerate(plan.arrow_schema.names):
        expected = [value for batch in uploaded for value in logical(batch.column(i), lenient)]
        got = [value for batch in restored for value in logical(batch.column(i), lenient)]
        assert got == expected, name


def has_fixed_lists_of_structs(arrow_type: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(arrow_type) and pa.types.is_struct(arrow_type.value_type):
        return True
    return any(has_fixed_lists_of_structs(arrow_type.field(i).type) for i in range(arrow_type.num_fields))


@pytest.mark.parametrize("tag", load_models())
def test_every_shipped_model_survives_storage(lake: Lake, tag: str) -> None:
    schema = model_arrow_schema(tag)
    plan = plan_storage(schema)
    table = lake.create_table(plan, tag)
    random = np.random.default_rng(len(tag))
    uploaded = [random_batch(schema, 20, random), random_batch(schema, 7, random)]
    path = lake.append(table, plan, uploaded)

    assert_same_rows(plan, list(read_parquet(path)), uploaded)
    assert_same_rows(plan, list(scan(table)), uploaded, lenient=True)
    restored = plan.from_storage(next(read_parquet(path)))
    assert fingerprint(restored.schema) == load_models()[tag].fingerprint


@pytest.mark.parametrize("leaf", LEAF_TYPES, ids=str)
def test_every_leaf_type_survives_storage_alone_in_lists_and_as_dictionary(lake: Lake, leaf: pa.DataType) -> None:
    struct = pa.struct([pa.field("inner", leaf, nullable=False), pa.field("other", pa.bool_())])
    schema = pa.schema(
        [
            TIMESTAMP,
            ("plain", leaf),
            ("struct", struct),
            ("list", pa.list_(pa.field("item", leaf, nullable=False))),
            ("fixed", pa.list_(leaf, 2)),
            ("large", pa.large_list(struct)),
            ("map", pa.map_(pa.string(), leaf)),
            ("dictionary", pa.dictionary(pa.int16(), leaf)),
        ]
    )
    plan = plan_storage(schema)
    table = lake.create_table(plan)
    uploaded = [random_batch(schema, 30, np.random.default_rng(seed)) for seed in range(3)]
    path = lake.append(table, plan, uploaded)

    assert_same_rows(plan, list(read_parquet(path)), uploaded)
    assert_same_rows(plan, list(scan(table)), uploaded, lenient=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(upload_schemas(), st.integers(0, 2**32), st.integers(0, 40))
def test_random_schemas_survive_parquet(schema: pa.Schema, seed: int, row_count: int) -> None:
    random = np.random.default_rng(seed)
    plan = plan_storage(schema)
    table_schema = topic_table_schema(plan)
    uploaded = [random_batch(schema, row_count, random), random_batch(schema, 3, random)]
    for batch in uploaded:
        batch.validate(full=True)
        assert_same_rows(plan, [plan.to_storage(batch)], [batch])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.parquet"
        write_parquet(path, plan, parquet_schema(table_schema, plan), uploaded)
        assert_same_rows(plan, list(read_parquet(path)), uploaded)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(schema=upload_schemas(), seed=st.integers(0, 2**32))
def test_random_schemas_survive_a_table_scan(lake: Lake, schema: pa.Schema, seed: int) -> None:
    # PyIceberg 0.12 turns null lists of structs into empty ones, which a fixed size cannot be.
    assume(not any(has_fixed_lists_of_structs(field.type) for field in schema))
    plan = plan_storage(schema)
    table = lake.create_table(plan)
    assert evolution(table.schema(), plan).verdict == "compatible"
    uploaded = [random_batch(schema, 10, np.random.default_rng(seed))]
    lake.append(table, plan, uploaded)
    assert_same_rows(plan, list(scan(table)), uploaded, lenient=True)
