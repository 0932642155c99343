"""How Dagster divides the lake: one partition per sequence.

Never sequence x topic: Dagster documents at most 100,000 partitions per asset.
"""

import dagster as dg

sequence_partitions = dg.DynamicPartitionsDefinition(name="sequences")
