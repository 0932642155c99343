"""Sessions in quarantine as operators look after them."""

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import GROUP, OWNER, uploaded_sessions

quarantined_sessions = dg.AssetSpec(
    "quarantined_sessions",
    deps=[uploaded_sessions],
    group_name=GROUP,
    kinds={"parquet"},
    owners=[OWNER],
    description=(
        "Sessions that broke a data contract before their commit, ingested here or finalized through the gateway, "
        "where the policy is `quarantine`: each event names one with the reason. They are complete, sealed, and in no "
        "table. Correct the contract and materialize `sequences` for the partition, or launch `release_sessions` or "
        "`discard_sessions`."
    ),
)
