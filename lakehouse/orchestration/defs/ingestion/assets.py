"""Recordings become sequences: uploaded by one asset, committed by the next."""

from collections.abc import Iterator
from typing import NoReturn

import dagster as dg
from pydantic import Field

from lakehouse.contracts.gate import guard
from lakehouse.orchestration.defs.ingestion.batch import Batch
from lakehouse.orchestration.defs.ingestion.outcome import Item, Outcome, describe, items_of
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata
from lakehouse.orchestration.defs.ingestion.telling import BatchEvents
from lakehouse.orchestration.landing.places import LandingPlaces
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.resources import LakehouseResource

GROUP = "ingestion"
OWNER = "team:fleet-operations"
MAX_RETRIES = 5
RETRY_AFTER_S = 10
SEQUENCES_PER_RUN = 50
RUN_RETRY_TAG = "dagster/retry_number"
"""Given by Dagster to a run in the place of one that was killed."""

recordings = dg.AssetSpec(
    "recordings",
    group_name=GROUP,
    kinds={"file"},
    owners=[OWNER],
    description=(
        "What the fleet sends: MCAP files, ROS 1 bags and rosbag2 directories that land in the drop folder or below "
        "the object store prefix. Nothing here is ours to change. Sensors look for new ones and start the ingestion; "
        "what was ingested is put aside, what cannot be ingested goes to quarantine with the reason."
    ),
)
quarantined_recordings = dg.AssetSpec(
    "quarantined_recordings",
    deps=[recordings],
    group_name=GROUP,
    kinds={"file"},
    owners=[OWNER],
    description=(
        "Recordings that were refused: each event names one with the reason and where it lies now. Mend the file or "
        "give it another name and drop it again; delete its `.reason.txt` to take it off the list."
    ),
)


def _per_sequence(key: str, *, after: dg.AssetSpec, kind: str, description: str) -> dg.AssetSpec:
    """One step of the way of a recording. A run leaves it out for a recording that is refused."""
    return dg.AssetSpec(
        key,
        deps=[after],
        group_name=GROUP,
        kinds={kind},
        owners=[OWNER],
        partitions_def=sequence_partitions,
        skippable=True,
        description=description,
    )


uploaded_sessions = _per_sequence(
    "uploaded_sessions",
    after=recordings,
    kind="parquet",
    description=(
        "One recording, decoded and written to Parquet, in a session that is still open: its rows can be read through "
        "the SDK, and no SQL engine sees them yet. Message counts are checked against the recording's own index; what "
        "could not be decoded is reported per topic. An upload that fails leaves nothing behind. Materialize it again "
        "and nothing happens if the recording is in; with `replaces: true` it is deleted first and ingested anew."
    ),
)
sequences = _per_sequence(
    "sequences",
    after=uploaded_sessions,
    kind="iceberg",
    description=(
        "The session is committed: all its topics appear at one instant in their Iceberg tables, for the SDK and every "
        "SQL engine alike, and never change again. Sequences that clients upload through the gateway appear here too. "
        "If only the commit has failed, materialize this asset alone: the upload is kept."
    ),
)


class IngestionConfig(dg.Config):
    """What to ingest."""

    recordings: list[str] = Field([])
    """Paths or URLs of recordings. Empty: those of the chosen partitions, wherever they are found."""

    replaces: bool = False
    """Delete sequences that are in already, and ingest their recordings again."""


@dg.multi_asset(
    name="ingestion",
    specs=[uploaded_sessions, sequences],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.multi_run(SEQUENCES_PER_RUN),
    pool="ingestion",
)
def ingestion(
    context: dg.AssetExecutionContext, config: IngestionConfig, lakehouse: LakehouseResource
) -> Iterator[dg.MaterializeResult]:
    """Ingests the partitions of the run, or the recordings of its configuration.

    Materializations are logged one by one, as they happen: one recording that is refused takes nothing from the others
    of its run.
    """
    places = LandingPlaces(lakehouse.settings())
    with lakehouse.open(actor=f"dagster run {context.run.run_id}") as lake:
        guard(lake, lake.settings.contract_policy, context.run.run_id)
        batch = Batch(
            lake,
            places,
            context.log,
            events_to(context),
            uploads=uploaded_sessions.key in context.selected_asset_keys,
            commits=sequences.key in context.selected_asset_keys,
            replaces=config.replaces,
            is_retry=was_tried_before(context),
        )
        outcome = batch.run(_items(context, config, places))
    end_run(outcome, context.retry_number)
    yield from ()


def was_tried_before(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> bool:
    """Whether an earlier attempt has taken the same recordings: of this run, or a run that was killed."""
    return context.retry_number > 0 or RUN_RETRY_TAG in context.run.tags


def events_to(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> BatchEvents:
    """Make what happens in a batch events of the assets."""
    partitions: set[str] = set()
    among = str(sequence_partitions.name)

    def expected(sequence: str) -> bool:
        if sequence in partitions or context.instance.has_dynamic_partition(among, sequence):
            return False
        context.instance.add_dynamic_partitions(among, [sequence])
        return True

    def materialized(key: dg.AssetKey, sequence: str, metadata: Metadata) -> None:
        if sequence not in partitions:
            context.instance.add_dynamic_partitions(among, [sequence])
            partitions.add(sequence)
        context.log_event(dg.AssetMaterialization(key, partition=sequence, metadata=metadata))

    def refused(name: str, reason: str, where: str) -> None:
        context.log_event(
            dg.AssetMaterialization(
                quarantined_recordings.key,
                description=f"{name}: {reason}",
                metadata={"recording": name, "reason": reason, "now at": where},
            )
        )

    return BatchEvents(
        uploaded=lambda sequence, metadata: materialized(uploaded_sessions.key, sequence, metadata),
        committed=lambda sequence, metadata: materialized(sequences.key, sequence, metadata),
        refused=refused,
        expected=expected,
        unexpected=lambda sequence: context.instance.delete_dynamic_partition(among, sequence),
    )


def end_run(outcome: Outcome, retry_number: int) -> None:
    """Let the run fail if something has to be tried again, or if it achieved nothing.

    Raises:
        RetryRequested: If the fault was not the recordings'; each time the wait is twice as long.
        Failure: If every recording was refused. Those in quarantine are uploaded and judged, as they should be.
    """
    if outcome.postponed:
        first = next(iter(outcome.postponed.values()))
        raise dg.RetryRequested(MAX_RETRIES, RETRY_AFTER_S * 2**retry_number) from first
    if outcome.refused and not outcome.done and not outcome.quarantined:
        _fail(outcome)


def _fail(outcome: Outcome) -> NoReturn:
    by_name: dict[str, list[str]] = {}
    for item, reason in outcome.refused.items():
        by_name.setdefault(item.name, []).append(reason)
    metadata = {name: dg.MetadataValue.text("; ".join(reasons)) for name, reasons in by_name.items()}
    raise dg.Failure(describe(outcome.refused)[:2000], metadata=metadata, allow_retries=False)


def _items(context: dg.AssetExecutionContext, config: IngestionConfig, places: LandingPlaces) -> list[Item]:
    if not context.has_partition_key and not context.has_partition_key_range:
        return items_of(config.recordings, places)
    given = {item.sequence: item.location for item in items_of(config.recordings, places)}
    names = list(context.partition_keys)
    if len(names) == len(config.recordings) == 1:
        return [Item(names[0], config.recordings[0])]  # a name of its own
    return [Item(name, given.get(name)) for name in names]
