"""The session: what it refuses to start on, and what it sets."""

import shlex
import shutil
import stat
import subprocess

import pytest

from feature_jobs import java
from feature_jobs.java import java_version
from feature_jobs.sail import is_embedded
from feature_jobs.session import spark_session
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
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }
    if not is_embedded():  # what is no session's own setting, Sail does not tell
        wanted["spark.driver.bindAddress"] = "127.0.0.1"
    assert {key: spark.conf.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("archive", [None, b"", b"no archive" * 1000])
def test_java_starts_silently_with_the_drivers_options_whatever_the_archive_holds(tmp_path, monkeypatch, archive):
    file = tmp_path / "classes.jsa"
    if archive is not None:
        file.write_bytes(archive)
    monkeypatch.setattr(java, "class_archive", lambda: file)
    scratch = tmp_path / "it's a home, ção"
    scratch.mkdir()
    options = shlex.split(java.driver_options(scratch))
    told = subprocess.run([shutil.which("java"), *options, "-version"], capture_output=True, text=True, check=True)
    assert told.stdout == "" and "version" in told.stderr.splitlines()[0]


def test_the_environment_has_its_archive_of_classes():
    assert java.class_archive().is_file(), (
        "run .venv/jobs/bin/python -m feature_jobs.class_archive, and see why it fails"
    )
