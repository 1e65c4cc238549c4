"""The smallest shop of docs/shops.md, as it stands there: one log of purchases, closed on Sundays. A whole night of it."""

import csv
import datetime as dt
import random
import textwrap
from pathlib import Path

import pytest
import yaml

from nightshelf.config import Shop, load_shop
from nightshelf.errors import InputError
from pipelines.night import run_night
from pipelines.sql import connect
from pipelines.warehouse import Warehouse

ROOT = Path(__file__).resolve().parents[2]
TUESDAY, NIGHT = dt.date(2026, 2, 10), dt.date(2026, 2, 16)
pytestmark = pytest.mark.night


@pytest.fixture
def shop(tmp_path: Path, spark: object) -> Shop:
    text = (ROOT / "docs/shops.md").read_text().split("## The smallest shop", 1)[1]
    told = yaml.safe_load(textwrap.dedent(text.split("\n\n")[1])) | {"home": str(tmp_path / "kiosk")}
    told["scenarios"]["counter"]["anchor"] = "purchase"  # and what to lay beside each article
    (tmp_path / "kiosk.yaml").write_text(yaml.safe_dump(told))
    return load_shop(tmp_path / "kiosk.yaml")


def write_sales(shop: Shop, days: list[dt.date]) -> None:
    """Write 300 sales a day: every card has three favourites among forty articles."""
    draw, folder = random.Random(5), shop.home / "raw" / "till"
    folder.mkdir(parents=True)
    for day in days:
        with (folder / f"{day}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["card", "article", "time", "amount"])
            for _ in range(300):
                card = draw.randrange(90)
                article = (7 * card + draw.randrange(3)) % 40 if draw.random() < 0.8 else draw.randrange(40)
                time = dt.datetime.combine(day, dt.time(9 + draw.randrange(9), draw.randrange(60)))
                rows.writerow([f"card{card}", f"a{article}", time, 1 + article % 5])


@pytest.mark.histories
def test_a_shop_with_purchases_alone_gets_its_shelves_and_a_missing_day_is_told(shop: Shop) -> None:
    week = [TUESDAY + dt.timedelta(days=n) for n in range(7)]
    write_sales(shop, [day for day in week if day.weekday() != 6])
    run_night(shop, NIGHT)
    tables = connect(Warehouse(shop))
    served = "SELECT scenario, count(DISTINCT user_key), min(rank), max(rank), count(*) FROM recommendations GROUP BY 1"
    assert tables.execute(served).fetchall() == [("counter", 91, 1, 10, 910)]  # 90 cards, and `*`
    beside = "SELECT count(DISTINCT anchor_item_id), min(rank), max(rank), count(*) FROM item_recommendations"
    assert tables.execute(beside).fetchall() == [(40, 1, 10, 400)]
    own = "SELECT count(*) FROM item_recommendations WHERE item_id = anchor_item_id OR NOT score > 0"
    assert tables.execute(own).fetchall() == [(0,)]
    sold = "SELECT as_of_date, rows_read, kept + quarantined + duplicates FROM source_counts ORDER BY 1"
    books = tables.execute(sold).fetchall()
    assert [(day, read) for day, read, _ in books] == [(day, 0 if day.weekday() == 6 else 300) for day in week]
    assert all(read == accounted for _, read, accounted in books)
    drawn = "SELECT round(avg(label_purchase), 2), min(sample_weight) FROM training_examples"
    assert tables.execute(drawn).fetchone() == (0.2, 1.0)  # each sale beside four articles that were not bought

    with pytest.raises(InputError, match="2026-02-17"):  # a Tuesday without a file
        run_night(shop, NIGHT + dt.timedelta(days=1))
    assert tables.execute(served).fetchall() == [("counter", 91, 1, 10, 910)]
