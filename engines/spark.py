"""Apache Spark on the lake: `python -m engines.spark [SQL]`. Without SQL it asks for statements until you leave.

Spark runs inside this process and its Java child, on this machine only. On a cluster the same settings, as
`spark_settings` returns them, go into `spark-defaults.conf`.
"""

import argparse
import os
from typing import Any

from pyspark.sql import SparkSession

from engines import versions
from engines.install import ensure, java_home
from engines.lake import CATALOG_NAME, JdbcCatalog, LakeLocation, RestCatalog
from lakehouse.catalog.settings import Settings

_MEMORY = "1g"


def spark_settings(lake: LakeLocation) -> dict[str, str]:
    """Spark's settings for a lake: its tables are `lake.NAMESPACE.TABLE`, or without the first."""
    return {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        **catalog_settings(lake, CATALOG_NAME),
        "spark.sql.defaultCatalog": CATALOG_NAME,
        "spark.sql.session.timeZone": "UTC",
    }


def catalog_settings(lake: LakeLocation, name: str) -> dict[str, str]:
    """Those of them that make a lake a catalog of this name; there may be several."""
    catalog = f"spark.sql.catalog.{name}"
    options = {
        # Another process may commit at any time: pointers are looked up for each statement.
        "cache-enabled": "false",
        **_catalog_options(lake.catalog),
    }
    if store := lake.object_store:
        options |= {"io-impl": "org.apache.iceberg.aws.s3.S3FileIO", "client.region": store.region}
        if store.endpoint:
            options |= {"s3.endpoint": store.endpoint, "s3.path-style-access": "true"}
        if store.access_key:
            options |= {"s3.access-key-id": store.access_key, "s3.secret-access-key": store.secret_key}
    return {
        catalog: "org.apache.iceberg.spark.SparkCatalog",
        **{f"{catalog}.{option}": value for option, value in options.items()},
    }


def _catalog_options(catalog: JdbcCatalog | RestCatalog) -> dict[str, str]:
    if isinstance(catalog, RestCatalog):
        options = {
            "type": "rest",
            "uri": catalog.uri,
            "warehouse": catalog.warehouse,
        }
        if catalog.credential:
            options |= {
                "credential": catalog.credential,
                "oauth2-server-uri": catalog.token_url,
                "scope": catalog.scope,
            }
        else:
            options["token"] = catalog.token
    else:
        options = {
            "type": "jdbc",
            "uri": catalog.url,
            "warehouse": catalog.warehouse,
            # With the column that tells tables from views, as the lake's own catalog has it.
            "jdbc.schema-version": "V1",
            "jdbc.user": catalog.user,
            "jdbc.password": catalog.password,
        }
    return {option: value for option, value in options.items() if value}


def open_spark(lake: LakeLocation, **extra: str) -> SparkSession:
    """Start Spark, or get the one that runs in this process already.

    Args:
        lake: The lake to open as catalog `lake`.
        extra: More settings; double underscores stand for dots.

    Raises:
        InstallationError: If Java or the jars are missing and cannot be had.
    """
    os.environ["JAVA_HOME"] = str(java_home(versions.SPARK_JAVA))
    jars = ",".join(str(jar) for jar in sorted(ensure("spark-jars").glob("*.jar")))
    settings = {
        "spark.jars": jars,
        "spark.driver.memory": _MEMORY,
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        # Nobody but this machine talks to it.
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        **spark_settings(lake),
        **{name.replace("__", "."): value for name, value in extra.items()},
    }
    builder: Any = SparkSession.builder.master("local[2]").appName("lakehouse")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark: SparkSession = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sql", nargs="?", help="one statement")
    statement = parser.parse_args().sql
    spark = open_spark(LakeLocation.from_settings(Settings.load()))
    try:
        if statement:
            spark.sql(statement).show(1000, truncate=False)
            return
        print("SQL, one statement a line, for example: SHOW TABLES IN imu. Ctrl-D leaves.")
        while True:
            try:
                if line := input("spark> ").strip().rstrip(";"):
                    spark.sql(line).show(1000, truncate=False)
            except EOFError:
                return
            except Exception as error:  # a wrong statement is answered, not the end of the session
                print(str(error).partition("\nJVM stacktrace")[0])
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
