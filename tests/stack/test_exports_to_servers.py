"""Exports to real servers: what stands in Parquet is read back, readers see one version at a time, kills leave the old one."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest
import redis

from nightshelf.errors import EngineError
from nightshelf.exports import PostgresView, RedisKeys
from pipelines.exports import postgres_view, redis_keys

pytestmark = pytest.mark.stack
USERS, PLACES = 3000, 5
ROWS = 2 * USERS * PLACES


@pytest.fixture
def view(postgres, monkeypatch, request):
    monkeypatch.setenv("SHELVES_PG", postgres)
    return PostgresView(to="postgres", url_env="SHELVES_PG", view=request.node.name[:30].lower())


@pytest.fixture
def keys(redis_url, monkeypatch):
    monkeypatch.setenv("SHELVES_REDIS", redis_url)
    with redis.Redis.from_url(redis_url) as server:
        server.flushall()
    return RedisKeys(to="redis", url_env="SHELVES_REDIS")


def ask(url, query):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def test_postgres_shows_what_was_published(view, postgres, version):
    assert "shows table" in postgres_view.export(view, version(1))
    of_user = f"FROM {view.view} WHERE user_key = 'u7' AND scenario = 'search' ORDER BY rank"
    rows = ask(postgres, f"SELECT user_key, item_id, score, reason, p_click {of_user}")
    assert rows == [
        ("u7", f'i"{n}, ü', 1.0, "" if (7 * PLACES + n) % 2 else "Goes with 'it'", None) for n in range(PLACES)
    ]
    assert ask(postgres, f"SELECT count(*), count(DISTINCT scenario) FROM {view.view}") == [(ROWS, 2)]


def test_shelves_of_items_are_found_by_their_item(view, keys, postgres, redis_url, version):
    items = version(1, "item_recommendations")
    postgres_view.export(view, items)
    rows = ask(postgres, f"SELECT rank, item_id FROM {view.view} WHERE anchor_item_id = 'a7' AND scenario = 'search'")
    assert sorted(rows) == [(1 + n, f'i"{n}, ü') for n in range(PLACES)]
    redis_keys.export(keys, items)
    server = redis.Redis.from_url(redis_url, decode_responses=True)
    shelf = json.loads(server.get(f"shelf:{server.get('shelf:current')}:search:a7"))
    assert [place["item_id"] for place in shelf] == [item for _, item in sorted(rows)]


def test_postgres_keeps_the_version_before_and_the_grants(view, postgres, version):
    postgres_view.export(view, version(1))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE ROLE storefront")
        connection.execute(f"GRANT SELECT ON {view.view} TO storefront")
    for number in (2, 3, 4):
        postgres_view.export(view, version(number))
    named = f"relkind = 'r' AND relname LIKE '{view.view}%'"
    tables = ask(postgres, f"SELECT relname FROM pg_class WHERE {named} ORDER BY 1")
    assert [name.rsplit("_", 1)[1] for (name,) in tables] == ["00000003", "00000004"]
    assert ask(postgres, f"SELECT has_table_privilege('storefront', '{view.view}', 'SELECT')") == [(True,)]


def test_a_reader_of_postgres_sees_one_version_at_a_time(view, postgres, version):
    postgres_view.export(view, version(0))
    seen = poll(
        lambda: ask(postgres, f"SELECT count(*), min(score), max(score) FROM {view.view}")[0],
        lambda: [postgres_view.export(view, version(number)) for number in range(1, 9)],
    )
    assert len(seen) > 20
    assert {count for count, _, _ in seen} == {ROWS}
    assert all(low == high for _, low, high in seen)
    assert len({low for _, low, _ in seen}) > 3
    assert [low for _, low, _ in seen] == sorted(low for _, low, _ in seen)


def test_a_transaction_that_stays_open_does_not_shut_out_the_other_readers(view, postgres, version, monkeypatch):
    monkeypatch.setattr(postgres_view, "_ATTEMPTS", 3)
    postgres_view.export(view, version(0))
    of_one = f"SELECT min(score), max(score) FROM {view.view} WHERE user_key = 'u7'"
    with psycopg.connect(postgres) as idle:
        idle.execute(of_one)

        def read():
            begun = time.monotonic()
            return ask(postgres, of_one)[0], time.monotonic() - begun

        def export():
            with pytest.raises(EngineError, match="is held by a transaction that reads it and stays open"):
                postgres_view.export(view, version(1))

        seen = poll(read, export)
    assert len(seen) > 5
    assert {scores for scores, _ in seen} == {(0.0, 0.0)}
    assert max(seconds for _, seconds in seen) < 5
    postgres_view.export(view, version(1))
    assert ask(postgres, of_one) == [(1.0, 1.0)]


def test_a_schema_of_any_name_is_swept(view, postgres, version, monkeypatch):
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Shelves of-1"')
    monkeypatch.setenv("SHELVES_PG", f"{postgres}?options=-csearch_path%3D%22Shelves%5C%20of-1%22")
    for number in (1, 2, 3):
        postgres_view.export(view, version(number))
    assert ask(postgres, "SELECT count(*) FROM pg_tables WHERE schemaname = 'Shelves of-1'") == [(2,)]


def test_a_reader_of_redis_sees_one_version_at_a_time(keys, redis_url, version):
    redis_keys.export(keys, version(0))
    server = redis.Redis.from_url(redis_url, decode_responses=True)

    def read():
        current = server.get("shelf:current")
        shelves = server.mget(
            [
                f"shelf:{current}:{scenario}:u{user}"
                for scenario in ("search", "home_feed")
                for user in range(0, USERS, 100)
            ]
        )
        return [place["score"] for shelf in shelves for place in json.loads(shelf)]

    seen = poll(read, lambda: [redis_keys.export(keys, version(number)) for number in range(1, 9)])
    assert len(seen) > 20
    assert {len(scores) for scores in seen} == {2 * 30 * PLACES}
    assert all(len(set(scores)) == 1 for scores in seen)
    first = server.get(f"shelf:{server.get('shelf:current')}:search:u7")
    assert [place["item_id"] for place in json.loads(first)] == [f'i"{n}, ü' for n in range(PLACES)]
    assert server.ttl("shelf:current") == -1
    assert server.ttl(f"shelf:{server.get('shelf:current')}:search:u7") == -1
    old = [key for key in server.scan_iter("shelf:*:search:u7") if server.get("shelf:current") not in key]
    assert old
    assert all(0 < server.ttl(key) <= 3600 for key in old)


def poll(read, change):
    """Return what `read` returned, again and again, while `change` ran."""
    seen, stop = [], threading.Event()

    def run():
        while not stop.is_set():
            seen.append(read())

    reader = threading.Thread(target=run)
    reader.start()
    try:
        change()
    finally:
        stop.set()
        reader.join()
    return seen


EXPORT = """
import pickle, sys
module, target, version = pickle.load(open(sys.argv[1], "rb"))
__import__("importlib").import_module("pipelines.exports." + module).export(target, version)
"""


@pytest.mark.parametrize("module", ["postgres_view", "redis_keys"])
def test_a_killed_export_leaves_a_whole_version(module, view, keys, postgres, redis_url, version, tmp_path):
    target = view if module == "postgres_view" else keys
    exporter = {"postgres_view": postgres_view, "redis_keys": redis_keys}[module]
    exporter.export(target, version(0))
    begun = time.monotonic()
    asked = tmp_path / "asked"
    asked.write_bytes(pickle.dumps((module, target, version(1))))
    subprocess.run([sys.executable, "-c", EXPORT, str(asked)], check=True)
    whole = time.monotonic() - begun
    shown, killed = 1.0, 0
    for number in range(2, 10):
        asked.write_bytes(pickle.dumps((module, target, version(number))))
        process = subprocess.Popen([sys.executable, "-c", EXPORT, str(asked)])
        time.sleep(whole * (0.3 + 0.07 * number))
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        scores = _all_scores(module, target, postgres, redis_url)
        assert len(scores) == ROWS
        assert set(scores) in ({shown}, {float(number)})
        shown = scores[0]
    assert killed >= 3
    exporter.export(target, version(10))
    assert set(_all_scores(module, target, postgres, redis_url)) == {10.0}


def _all_scores(module, target, postgres, redis_url):
    if module == "postgres_view":
        return [score for (score,) in ask(postgres, f"SELECT score FROM {target.view}")]
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:
        found = list(server.scan_iter(f"shelf:{server.get('shelf:current')}:*", count=1000))
        return [place["score"] for shelf in server.mget(found) for place in json.loads(shelf)]


def test_a_full_redis_keeps_nothing_of_what_failed_and_takes_the_next(keys, redis_url, version):
    redis_keys.export(keys, version(0))
    with redis.Redis.from_url(redis_url, decode_responses=True) as server:
        before, used = set(server.keys("*")), server.info("memory")["used_memory"]
        server.set("shelf:20260203_deadbeef:search:u7", "left by a run that was killed")
        server.config_set("maxmemory", used + 300_000)
        try:
            for number in (1, 2):
                with pytest.raises(EngineError, match="maxmemory"):
                    redis_keys.export(keys, version(number))
                assert set(server.keys("*")) == {*before, "shelf:20260203_deadbeef:search:u7"}
            assert 0 < server.ttl("shelf:20260203_deadbeef:search:u7") <= 3600
        finally:
            server.config_set("maxmemory", 0)
    redis_keys.export(keys, version(3))
    assert set(_all_scores("redis_keys", keys, "", redis_url)) == {3.0}


def test_a_server_that_is_away_is_told_without_its_password(monkeypatch, version):
    monkeypatch.setenv("SHELVES_PG", "postgresql://shop:secret@127.0.0.1:1/x")
    with pytest.raises(EngineError, match=r"PostgreSQL at postgresql://127\.0\.0\.1:1/x: .*refused") as failed:
        postgres_view.export(PostgresView(to="postgres", url_env="SHELVES_PG"), version(1))
    monkeypatch.setenv("SHELVES_REDIS", "redis://:secret@127.0.0.1:1/0")
    with pytest.raises(EngineError, match=r"Redis at redis://127\.0\.0\.1:1/0: .*refused") as also:
        redis_keys.export(RedisKeys(to="redis", url_env="SHELVES_REDIS"), version(1))
    assert "secret" not in str(failed.value) + str(also.value)
