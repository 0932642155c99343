"""Does by hand what Dagster's daemon does: ticks sensors, launches what they ask for, stores what they report."""

from typing import Any

import dagster as dg

from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.resources import LakehouseResource


def tick(instance: dg.DagsterInstance, sensor: dg.SensorDefinition, cursor: str | None = None) -> dg.SensorResult:
    """One tick; events are stored and partitions added and removed as requested."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"lakehouse": LakehouseResource()})
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    for request in result.dynamic_partitions_requests or []:
        if isinstance(request, dg.AddDynamicPartitionsRequest):
            instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        else:
            for key in request.partition_keys:
                instance.delete_dynamic_partition(request.partitions_def_name, key)
    return result


def launch(instance: dg.DagsterInstance, tick_result: dg.SensorResult) -> list[dg.ExecuteInProcessResult]:
    """Launch the runs that a tick asks for."""
    return [
        defs.resolve_job_def(request.job_name or "ingest_recordings").execute_in_process(
            run_config=request.run_config, instance=instance, raise_on_error=False
        )
        for request in tick_result.run_requests or []
    ]


def ingest(
    instance: dg.DagsterInstance, assets: list[str], partitions: list[str], **config: Any
) -> dg.ExecuteInProcessResult:
    """Materialize assets for a range of partitions, as the button in the UI does."""
    tags = {"dagster/asset_partition_range_start": partitions[0], "dagster/asset_partition_range_end": partitions[-1]}
    return defs.resolve_job_def("ingest_recordings").execute_in_process(
        run_config={"ops": {"ingestion": {"config": config}}},
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        instance=instance,
        tags=tags,
        raise_on_error=False,
    )


def metadata_of(instance: dg.DagsterInstance, asset: str | dg.AssetKey, partition: str | None = None) -> dict[str, Any]:
    """The metadata of the latest materialization."""
    key = dg.AssetKey(asset) if isinstance(asset, str) else asset
    filters = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
    event = instance.fetch_materializations(filters, limit=1).records[0].asset_materialization
    assert event is not None
    return {name: getattr(value, "md_str", value.value) for name, value in event.metadata.items()}
