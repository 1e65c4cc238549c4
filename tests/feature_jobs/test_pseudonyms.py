"""User ids end at the door: hashed as identity.user_key hashes, and taken out of raw text."""

import pytest
from pyspark.sql import functions as F

from feature_jobs.pseudonyms import mask_letters_and_digits, masked_texts, user_keys
from nightshelf.identity import user_key

pytestmark = pytest.mark.spark


def test_keys_are_those_of_the_base(spark, tmp_path):
    (tmp_path / "key").write_bytes(b"k" * 32)
    ids = ["a", "b", None, "a", "ü", "12"]
    frame = spark.createDataFrame([(i,) for i in ids], "id string").repartition(1)
    keyed = frame.select("id", user_keys(tmp_path / "key")(F.col("id")).alias("key"))
    assert {row["id"]: row["key"] for row in keyed.collect()} == {i: i and user_key(i, b"k" * 32) for i in ids}
    plan = keyed._jdf.queryExecution().toString() if hasattr(keyed, "_jdf") else ""
    assert "kkkk" not in plan


@pytest.mark.parametrize(
    ("raw", "user", "masked"),
    [
        ('{"uid":"canary","q":"shoes"}', "canary", '{"uid":"KEY","q":"shoes"}'),
        ("1::1193::5", "1", "KEY::1193::5"),
        ("canary,canary_2,x", "canary", "KEY,KEY_2,x"),
        ("canary,xcanary,7", "canary", "xxxxxx,xxxxxxx,9"),
        ('{"uid":"\\u0063anary"}', "canary", '{"xxx":"\\x9999xxxxx"}'),
        ("abc 123 äß", None, "xxx 999 xx"),
        ("a.b(c\\Ed$,9", "a.b(c\\Ed$", "KEY,9"),
        ("aXb", "a.b", "xxx"),
    ],
)
def test_raw_text_loses_the_id(spark, tmp_path, raw, user, masked):
    (tmp_path / "key").write_bytes(b"k" * 32)
    rows = [(raw, user), (None, user), (raw, user)]
    frame = spark.createDataFrame(rows, "raw string, user string").repartition(1)
    replaced = masked_texts(tmp_path / "key")(F.col("raw"), F.col("user"))
    found = frame.select(F.coalesce(replaced, mask_letters_and_digits(F.col("raw")))).collect()
    expected = masked.replace("KEY", user_key(user, b"k" * 32)) if user else masked
    assert sorted((row[0] for row in found), key=str) == sorted([expected, None, expected], key=str)
