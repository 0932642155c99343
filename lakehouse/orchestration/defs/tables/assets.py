"""The tables of the lake as assets, one per Iceberg table, grouped by ontology tag.

Tables come into being with the data, so these assets are made when the code location loads, from the tables that are
there. None of them is ever materialized by Dagster: commits do that, and sensors report it.
"""

import logging
import re
from collections.abc import Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import dagster as dg

from lakehouse.catalog.errors import LakehouseError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.table_overview import TableOverview, table_overviews
from lakehouse.orchestration.defs.contracts.assets import contract_reports
from lakehouse.orchestration.defs.ingestion.assets import OWNER, sequences, uploaded_sessions
from lakehouse.orchestration.defs.maintenance.assets import audit_report

CATALOG = "lake"
PUBLISHED_GROUP = "published"
MAX_COLUMNS = 300
SHORTEST_WINDOW = timedelta(minutes=1)
"""Dagster refuses shorter ones."""

_PUBLISHED = {
    "mosaico.sequences": "Every sequence with its user metadata and the recording it was made from, for joins in SQL.",
    "mosaico.sessions": "Every finalized session with the times it was opened and completed, for joins in SQL.",
    "mosaico.topics": (
        "Every topic with its table, exact schema, row count, size and time span: which robot recorded what, and when."
    ),
}
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,63}")

logger = logging.getLogger(__name__)


def tables_in_the_lake(settings: Settings) -> list[TableOverview]:
    """All tables there are; none, with a warning, if the lake cannot be reached: the page must still open."""
    if not settings.has_database:
        return []
    try:
        with Lakehouse.open(settings) as lake:
            return list(table_overviews(lake).values())
    except LakehouseError as error:
        logger.warning("the asset graph is shown without tables: %s", error.message)
        return []


def table_key(identifier: str) -> dg.AssetKey:
    """The asset of a table: its full name as SQL engines know it."""
    return dg.AssetKey([CATALOG, *identifier.split(".")])


def table_assets(tables: Iterable[TableOverview], settings: Settings) -> list[dg.AssetSpec]:
    """The assets of topic tables and published tables."""
    by_identifier = {table.identifier: table for table in tables}
    topics = [_topic_table(table, settings) for table in topic_tables(by_identifier.values())]
    system = {name: by_identifier.get(name) for name in _PUBLISHED} | {
        table.identifier: table for table in by_identifier.values() if table.topic is None
    }
    return topics + [_published_table(name, table, settings) for name, table in system.items()]


def topic_tables(tables: Iterable[TableOverview]) -> list[TableOverview]:
    """Those that hold the rows of a topic, not records of the system."""
    return [table for table in tables if table.topic is not None]


def judged_after_tables(validation: dg.AssetsDefinition, tables: Iterable[TableOverview]) -> dg.AssetsDefinition:
    """The asset of the contract reports, downstream of the topic tables that contracts judge.

    Tables have no partitions in Dagster, so the report on any sequence depends on each of them as a whole.
    """
    judged = [
        dg.AssetDep(table_key(table.identifier), partition_mapping=dg.AllPartitionMapping())
        for table in topic_tables(tables)
    ]
    return validation.map_asset_specs(
        lambda spec: spec.replace_attributes(deps=[*spec.deps, *judged]) if spec.key == contract_reports.key else spec
    )


def table_metadata(table: TableOverview) -> dict[str, Any]:
    """What is known of a table's content, for the events of its asset."""
    metadata: dict[str, Any] = {
        "dagster/row_count": table.rows,
        "files": table.files,
        "bytes": table.total_bytes,
        **schema_metadata(table),
    }
    if table.snapshot_id is not None:
        metadata["snapshot_id"] = dg.MetadataValue.text(str(table.snapshot_id))  # too long for JavaScript's numbers
    if table.committed_at_ms is not None:
        metadata["committed_at"] = dg.MetadataValue.timestamp(table.committed_at_ms / 1000)
    return metadata


def schema_metadata(table: TableOverview) -> dict[str, Any]:
    """What a table looks like: name, place and columns with their units."""
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            description=column.comment or None,
            constraints=dg.TableColumnConstraints(nullable=not column.is_required),
        )
        for column in table.columns[:MAX_COLUMNS]
    ]
    return {
        "dagster/table_name": f"{CATALOG}.{table.identifier}",
        "dagster/uri": table.location,
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def _topic_table(table: TableOverview, settings: Settings) -> dg.AssetSpec:
    tag = table.ontology_tag or ""
    what = table.description or f"Rows of the type {tag}, for which no model is shipped: columns as recorded."
    return dg.AssetSpec(
        table_key(table.identifier),
        deps=[sequences],
        group_name=table.namespace,
        kinds={"iceberg", "table"},
        owners=[OWNER],
        tags={"lakehouse/ontology_tag": tag} if _TAG_VALUE.fullmatch(tag) else {},
        metadata={
            **schema_metadata(table),
            "topic": table.topic or "",
            "ontology_tag": tag,
            "written by": dg.MetadataValue.asset(sequences.key),
        },
        freshness_policy=freshness_policy(settings) if keeps_moving(table.identifier, settings) else None,
        description=(
            f"{what}\n\nTopic `{table.topic}` of all sequences that have it, one partition of the table per sequence "
            f"and day, sorted by time. Any engine that reads Iceberg opens it as `{CATALOG}.{table.identifier}`; "
            "filter on `sequence` and `recorded_at`, the exact time is `timestamp_ns`."
        ),
    )


_SYSTEM = {
    "mosaico.notifications": "What clients and ingestions noted about sequences and topics, for joins in SQL.",
    "mosaico.validation_results": "The verdict of every contract rule on every sequence it was applied to, for SQL.",
    "mosaico.audit_log": "Who did what, when and through which door: what administers or destroys, for SQL.",
}


def _feeders(identifier: str, settings: Settings) -> list[dg.AssetSpec]:
    """Where the rows of a published table come from, besides clients at the gateway. Retention only takes rows away."""
    match identifier:
        case "mosaico.notifications":
            return [uploaded_sessions]  # noted while the recording is read, committed at once
        case "mosaico.validation_results":
            judged_before_commit = settings.contract_policy != "report"
            return [contract_reports, uploaded_sessions] if judged_before_commit else [contract_reports]
        case "mosaico.audit_log":
            return [audit_report]
    return [sequences]


def _published_table(identifier: str, table: TableOverview | None, settings: Settings) -> dg.AssetSpec:
    return dg.AssetSpec(
        table_key(identifier),
        deps=_feeders(identifier, settings),
        group_name=PUBLISHED_GROUP,
        kinds={"iceberg", "table"},
        owners=[OWNER],
        metadata=schema_metadata(table) if table else {"dagster/table_name": f"{CATALOG}.{identifier}"},
        description=(_PUBLISHED | _SYSTEM).get(
            identifier, f"Records that the system keeps, as `{CATALOG}.{identifier}`."
        ),
    )


def keeps_moving(identifier: str, settings: Settings) -> bool:
    """Whether a table is among those that should keep moving."""
    patterns = [pattern.strip() for pattern in settings.fresh_tables.split(",")]
    return any(fnmatchcase(identifier, pattern) for pattern in patterns if pattern)


def freshness_policy(settings: Settings) -> dg.FreshnessPolicy:
    """Red after the window without new rows, yellow after half of it, but for windows below two minutes."""
    window = timedelta(seconds=settings.freshness_window)
    is_long_enough = window >= 2 * SHORTEST_WINDOW
    return dg.FreshnessPolicy.time_window(fail_window=window, warn_window=window / 2 if is_long_enough else None)
