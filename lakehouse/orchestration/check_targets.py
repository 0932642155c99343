"""What an evaluation of a check that no run made is about."""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)


def latest_materialization(
    instance: dg.DagsterInstance, asset: dg.AssetKey
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialization that an evaluation is about; None if there is none yet.

    Without it Dagster compares times, those of evaluations in whole seconds, and an evaluation within a second of the
    materialization counts as one from before it: as none.
    """
    records = instance.fetch_materializations(asset, limit=1).records
    if not records:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=records[0].storage_id, run_id=records[0].run_id, timestamp=records[0].timestamp
    )
