"""Jobs that validate."""

import dagster as dg

from lakehouse.orchestration.defs.contracts.assets import ValidationConfig, contract_reports, validation

validate_recordings = dg.define_asset_job(
    "validate_recordings",
    selection=dg.AssetSelection.assets(contract_reports.key),
    description=(
        "Judge recordings by their data contracts: the partitions chosen, or by run configuration certain sessions or "
        "all sequences whose names match a pattern."
    ),
)


def validate_config(**values: object) -> dg.RunConfig:
    """The run configuration that validates certain sessions, or sequences by pattern."""
    return dg.RunConfig(ops={validation.op.name: ValidationConfig(**values)})  # type: ignore[arg-type]
