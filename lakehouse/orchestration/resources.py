"""The lake as a Dagster resource."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from lakehouse.catalog import audit
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings


class LakehouseResource(dg.ConfigurableResource):
    """Opens the lake that the environment describes (`LAKEHOUSE_HOME`, `MOSAICOD_*`), afresh for each use."""

    def settings(self) -> Settings:
        return Settings.load()

    @contextmanager
    def open(self, actor: str) -> Iterator[Lakehouse]:
        """The open lake; what is done with it is recorded under `actor` in the audit log."""
        with Lakehouse.open(self.settings()) as lake, audit.acting_as(actor, door="dagster"):
            yield lake
            lake.maintenance.run_pending()
