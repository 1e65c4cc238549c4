"""The session: what it refuses to start on, and what it sets."""

import stat

import pytest

from feature_jobs.session import java_version, spark_session
from nightshelf.errors import InputError


def fake_java(folder, told):
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{told}' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)


def test_an_old_java_is_told_with_the_remedy(tiny_shop, tmp_path, monkeypatch):
    fake_java(tmp_path, 'openjdk version "11.0.2" 2019-01-15')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr("pyspark.sql.SparkSession.getActiveSession", lambda: None)
    with pytest.raises(InputError, match="Java 11 is too old for Spark; install Java 17 or later"):
        spark_session(tiny_shop(days=0))


def test_no_java_is_told_with_the_remedy(tiny_shop, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    monkeypatch.setattr("pyspark.sql.SparkSession.getActiveSession", lambda: None)
    assert java_version() is None
    with pytest.raises(InputError, match=r"no Java found for Spark; install Java 17 or later .* or set JAVA_HOME"):
        spark_session(tiny_shop(days=0))


@pytest.mark.spark
def test_the_session_is_shared_and_set_for_dirty_logs(spark, tiny_shop):
    assert spark_session(tiny_shop(days=0)) is spark
    wanted = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    wanted["spark.sql.parquet.outputTimestampType"] = "TIMESTAMP_MICROS"
    assert {key: spark.conf.get(key) for key in wanted} == wanted
