"""The Java that Spark runs on: which one, and how it is started."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from nightshelf.errors import InputError

MIN_JAVA = 17
# Spark writes one method for a table's whole row; beyond 8,000 bytes Java would interpret it, four times as slow.
WIDE_ROWS = "-XX:-DontCompileHugeMethods"
# What plans a query, and not what moves its rows: each method runs too seldom to pay for Java's second compiler.
_PLANNING = (
    "org/codehaus/*", "org/antlr/*", "org/apache/xbean/*", "scala/collection/*", "scala/reflect/*", "py4j/*",
    "org/apache/spark/scheduler/*", "org/apache/spark/sql/execution/adaptive/*", "org/apache/spark/sql/execution/ui/*",
    *(f"org/apache/spark/sql/catalyst/{part}/*" for part in ("analysis", "optimizer", "planning", "plans", "rules", "trees")),
    "java/io/Object*", "java/net/*", "java/util/jar/*",
    "jdk/internal/loader/*", "jdk/internal/org/*",
)  # fmt: skip


def driver_options(scratch: Path) -> str:
    """Return the options of the driver's Java, as words of a shell; what it reads and writes lies in `scratch`."""
    options = [
        "-XX:+IgnoreUnrecognizedVMOptions",  # another Java may lack some of these, and none is needed
        f"-Djava.io.tmpdir={scratch}",
        "-XX:+UseParallelGC",
        WIDE_ROWS,
        "-XX:+UnlockDiagnosticVMOptions",
        "-XX:-DisplayVMOutput",  # or it would tell how many directives there are
        f"-XX:CompilerDirectivesFile={_spare_second_compiler(scratch)}",
        # Java is silent about the archive where it does not fit (another Java since), and reads the classes themselves.
        f"-XX:SharedArchiveFile={class_archive()}",
        "-Xlog:cds*=off",
        f"-Dlog4j2.configurationFile={quiet_logs(scratch)}",
    ]
    return shlex.join(options)  # a home may have spaces in its path


def class_archive() -> Path:
    """Return the file in which Java finds Spark's classes read and checked; feature_jobs.class_archive makes it."""
    return Path(sys.prefix) / "spark-classes.jsa"


def _spare_second_compiler(folder: Path) -> Path:
    """Write the directives that leave planning to Java's first compiler: a tenth of a night's stages on Spark."""
    file = folder / "compiler_directives.json"
    file.write_text(json.dumps([{"match": [f"{name}.*" for name in _PLANNING], "c2": {"Exclude": True}}]))
    return file


def quiet_logs(folder: Path) -> Path:
    """Write a log4j2 file that lets errors through only."""
    file = folder / "log4j2.properties"
    file.write_text(
        "rootLogger.level = error\nrootLogger.appenderRef.stderr.ref = stderr\n"
        # Spark tells of its own level for the Python gateway unless that is the root's
        "logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer\nlogger.gateway.level = error\n"
        "appender.stderr.type = Console\nappender.stderr.name = stderr\nappender.stderr.target = SYSTEM_ERR\n"
        "appender.stderr.layout.type = PatternLayout\nappender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex\n"
    )
    return file


def java_version() -> int | None:
    """Return the major version of the Java that Spark would start, or None if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        return None
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(\d+)', told)
    return int(match[1]) if match else None


def check_java() -> None:
    """Refuse to start without a Java that Spark can run on.

    Raises:
        InputError: there is no Java, or it is older than MIN_JAVA.
    """
    version = java_version()
    if version is None:
        raise InputError(
            f"no Java found for Spark; install Java {MIN_JAVA} or later (Debian: default-jre-headless) or set JAVA_HOME to one"
        )
    if version < MIN_JAVA:
        raise InputError(
            f"Java {version} is too old for Spark; install Java {MIN_JAVA} or later, or set JAVA_HOME to one"
        )
