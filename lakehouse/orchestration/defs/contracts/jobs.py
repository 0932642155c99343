"""The job that validates what is named in its run configuration.

Not a job of the asset: Dagster runs a partitioned asset for one partition, or for neighbours, and not for those that
happen to be new.
"""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts.selection import select_subjects, subjects_of_sessions
from lakehouse.contracts.validation import Subject
from lakehouse.orchestration.defs.contracts.assets import validate_and_tell
from lakehouse.orchestration.resources import LakehouseResource


class ValidationConfig(dg.Config):
    """What to validate."""

    sessions: list[str] = Field([])
    """Locators of sessions."""

    sequences: str = ""
    """Pattern of sequence names; `*` for any characters."""


@dg.op(description="Judge each sequence by its data contracts; reports and checks are those of `contract_reports`.")
def validation_of_what_is_named(
    context: dg.OpExecutionContext, config: ValidationConfig, lakehouse: LakehouseResource
) -> None:
    with lakehouse.open(actor=f"dagster run {context.run_id}") as lake:
        validate_and_tell(context, lake, _subjects(lake, config))


@dg.job(
    description=(
        "Judge recordings by their data contracts: certain sessions, or all sequences whose names match a pattern. To "
        "validate chosen partitions, materialize the asset `contract_reports`."
    )
)
def validate_recordings() -> None:
    validation_of_what_is_named()


def validate_config(**values: object) -> dg.RunConfig:
    """The run configuration that validates certain sessions, or sequences by pattern."""
    return dg.RunConfig(ops={validation_of_what_is_named.name: ValidationConfig(**values)})  # type: ignore[arg-type]


def _subjects(lake: Lakehouse, config: ValidationConfig) -> Iterator[Subject]:
    yield from subjects_of_sessions(lake, config.sessions)
    if config.sequences:
        yield from select_subjects(lake, config.sequences)
