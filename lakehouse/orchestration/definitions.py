"""Everything Dagster sees of the lakehouse."""

import dagster as dg

from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.building import build_definitions
from lakehouse.orchestration.defs.tables.assets import tables_in_the_lake

settings = Settings.load()
defs: dg.Definitions = build_definitions(settings, tables_in_the_lake(settings))
