"""Sessions as operators look after them."""

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import GROUP, OWNER, uploaded_sessions

unfinished_sessions = dg.AssetSpec(
    "unfinished_sessions",
    deps=[uploaded_sessions],
    group_name=GROUP,
    kinds={"sql"},
    owners=[OWNER],
    description=(
        "Sessions that somebody began and did not end, in the gateway or here. Those interrupted in the middle of "
        "their commit are carried through; open ones in which nothing happens any more are reported, or discarded if "
        "LAKEHOUSE_STALE_SESSION_POLICY says so. The latest event lists them with what was done."
    ),
)
