import datetime as dt
import gzip
import json
import sys

import numpy as np
import pytest

from benchmarks import top_n

DAYS = {day: dt.datetime(2000, 11, day, tzinfo=dt.UTC) for day in range(1, 31)}


@pytest.fixture
def home(tmp_path):
    """Ratings as `nightshelf fetch movielens` leaves them: user, film, what, and the day of November."""
    acts = [
        ("1", "a", "like", 1), ("2", "b", "like", 1), ("1", "c", "dislike", 2), ("2", "a", "like", 3), ("1", "b", "like", 11),
        ("1", "a", "like", 12), ("2", "d", "like", 12), ("3", "a", "like", 13), ("2", "c", "dislike", 14), ("2", "e", "like", 20),
    ]  # fmt: skip
    (tmp_path / "movielens.yaml").touch()
    folder = tmp_path / "raw" / "ratings" / "2000-11"
    folder.mkdir(parents=True)
    with gzip.open(folder / "part.jsonl.gz", "wt") as file:
        for user, movie, what, day in acts:
            row = {"user": user, "movie": movie, "what": what, "ts": int(DAYS[day].timestamp())}
            file.write(json.dumps(row) + "\n")
    films = "movie,category,decade\n" + "".join(f"{movie},Drama/War,1990s\n" for movie in "abcde")
    (tmp_path / "raw" / "movies.csv").write_text(films)
    return tmp_path


def test_what_is_known_lies_before_the_cut_and_what_is_wanted_between_it_and_the_end(home):
    log = top_n.movielens(home, DAYS[10], DAYS[20])
    assert (log.users, log.items, len(log.item)) == (2, 2, 3)  # films that nobody liked before are in no catalogue
    assert log.seconds.max() < log.cut == DAYS[10].timestamp()
    first, second = log.user[0], log.user[1]
    b = log.item[1]
    assert {who: items.tolist() for who, items in log.wanted.items()} == {first: [b]}  # `a` is not new to anybody
    late = top_n.movielens(home, DAYS[13], None)
    assert late.items == 3
    assert late.wanted == {}  # of those known by then one turns to a film alone that is in no catalogue
    assert second not in late.wanted


def test_nothing_from_the_end_on_is_read(home):
    until = top_n.movielens(home, DAYS[2], DAYS[12])
    whole = top_n.movielens(home, DAYS[2], None)
    names = sum(len(items) for items in until.wanted.values()), sum(len(items) for items in whole.wanted.values())
    assert names == (2, 2)  # what comes later is the same film again, or no film of the catalogue
    assert np.array_equal(until.item, whole.item)
    assert len(top_n.movielens(home, DAYS[30], DAYS[12] + dt.timedelta(days=20)).item) == 8
    assert len(top_n.movielens(home, DAYS[13], DAYS[13]).item) == 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--cut", "2000-11-15", "--until", "2000-11-15"], "--until 2000-11-15 is not after the cut, 2000-11-15"),
        (["--only", "ours,everybody"], "--only everybody: choose from popularity,recent"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(monkeypatch, capsys, arguments, told):
    monkeypatch.setattr(sys, "argv", ["top_n", *arguments])
    with pytest.raises(SystemExit) as ended:
        top_n.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_the_command_measures_the_rows_that_are_asked_for_on_an_earlier_cut(home, monkeypatch, capsys):
    (home / "bench").mkdir()
    (home / "bench" / "movielens").symlink_to(home)
    command = [
        "top_n",
        "--home",
        str(home / "bench"),
        "--cut",
        "2000-11-10",
        "--until",
        "2000-11-13",
        "--only",
        "popularity",
    ]
    monkeypatch.setattr(sys, "argv", command)
    top_n.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == {"movielens": {"recall_at_20": {"popularity": 1.0}, "ndcg_at_20": {"popularity": 1.0}}}


def test_what_was_met_and_not_turned_to_makes_room_for_the_next_best(home, tmp_path):
    log = top_n.movielens(home, DAYS[15], None)
    assert log.met == {}  # c, which two users disliked, is in no catalogue
    crowd = top_n.Log(
        user=np.array([0, 1, 1, 2, 2, 2, 3]),
        item=np.array([0, 0, 1, 0, 1, 2, 3]),
        seconds=np.arange(7.0),
        cut=9.0,
        wanted={3: np.array([1])},
        fields=np.ones((4, 2), np.int64),
        is_new_alone=True,
        met={3: np.array([0])},
        user_ids=[],
        item_ids=[],
    )
    found = top_n.measure(crowd, tmp_path / "out", top_n.RECIPES["movielens"], ["popularity"])
    assert found[""]["popularity"]["ndcg"] == pytest.approx(1 / np.log2(3))  # behind film 0
    assert found[", unrated"]["popularity"]["ndcg"] == 1.0
