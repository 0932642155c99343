"""Mosaico Lakehouse: robot recordings as Apache Iceberg tables, orchestrated by Dagster."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mosaico-lakehouse")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
