"""The smallest shop of docs/shops.md, as it stands there: one log of purchases, as dirty as they are. A whole night of it."""

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
OPEN = [TUESDAY + dt.timedelta(days=n) for n in (0, 1, 3, 4, 6)]  # on the 12th there was none, the 15th is a Sunday
CANCELLED = 3  # pieces
pytestmark = pytest.mark.night


@pytest.fixture
def shop(tmp_path: Path, spark: object) -> Shop:
    text = (ROOT / "docs/shops.md").read_text().split("## The smallest shop", 1)[1]
    told, more = (yaml.safe_load(textwrap.dedent(part)) for part in text.split("\n\n")[1:4:2])
    told = told | {"home": str(tmp_path / "kiosk"), "closed": more["closed"]}
    told["sources"][0] |= more["sources"][0]
    told["scenarios"]["counter"]["anchor"] = "purchase"  # and what to lay beside each article
    (tmp_path / "kiosk.yaml").write_text(yaml.safe_dump(told))
    return load_shop(tmp_path / "kiosk.yaml")


def write_sales(shop: Shop, days: list[dt.date]) -> None:
    """Write 300 sales a day, every card with three favourites among forty articles, and what a till writes beside them.

    A hundred sales without a card, one that is cancelled in the evening, and on all days but the first the cancellation of one
    of the day before.
    """
    draw, folder = random.Random(5), shop.home / "raw" / "till"
    folder.mkdir(parents=True)
    for n, day in enumerate(days):
        with (folder / f"{day}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["card", "article", "time", "amount", "pieces"])
            for number in range(400):
                card = draw.randrange(90)
                article = (7 * card + draw.randrange(3)) % 40 if draw.random() < 0.8 else draw.randrange(40)
                time = dt.datetime.combine(day, dt.time(9 + draw.randrange(9), draw.randrange(60)))
                rows.writerow([f"card{card}" if number < 300 else "", f"a{article}", time, 1 + article % 5, 1])
            rows.writerow(["card7", "a7", f"{day} 08:30:00", 3, CANCELLED])
            rows.writerow(["card7", "a7", f"{day} 19:30:00", 3, -CANCELLED])
            rows.writerow(["card8", "a8", f"{day} 08:30:00", 4, CANCELLED + 1 + n])
            if n:
                rows.writerow(["card8", "a8", f"{day} 19:30:00", 4, -CANCELLED - n])


@pytest.mark.histories
def test_a_shop_with_purchases_alone_gets_its_shelves_and_a_missing_day_is_told(shop: Shop) -> None:
    write_sales(shop, OPEN)
    run_night(shop, NIGHT)
    tables = connect(Warehouse(shop))
    served = "SELECT scenario, count(DISTINCT user_key), min(rank), max(rank), count(*) FROM recommendations GROUP BY 1"
    assert tables.execute(served).fetchall() == [("counter", 91, 1, 10, 910)]  # 90 cards, and `*`
    beside = "SELECT count(DISTINCT anchor_item_id), min(rank), max(rank), count(*) FROM item_recommendations"
    assert tables.execute(beside).fetchall() == [(40, 1, 10, 400)]
    own = "SELECT count(*) FROM item_recommendations WHERE item_id = anchor_item_id OR NOT score > 0"
    assert tables.execute(own).fetchall() == [(0,)]
    sold = "SELECT as_of_date, rows_read, kept + quarantined + duplicates, quarantined, expected FROM source_counts ORDER BY 1"
    books = {day: rows for day, *rows in tables.execute(sold).fetchall()}
    aside = dict.fromkeys(OPEN, 103) | {TUESDAY: 102}
    read = {day: 403 + (day > TUESDAY) for day in OPEN}
    assert {day: rows for day, rows in books.items() if rows[0]} == {
        day: [read[day], read[day], aside[day], aside[day]] for day in OPEN
    }
    assert len(books) == 7
    reasons = "SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 1"
    assert tables.execute(reasons).fetchall() == [("cancellation", 9), ("cancelled", 5), ("without_user", 500)]
    large = "SELECT quantity FROM events WHERE quantity > 1 ORDER BY 1"  # those of earlier days stay
    assert tables.execute(large).fetchall() == [(CANCELLED + 1 + n,) for n in range(5)]
    drawn = "SELECT round(avg(label_purchase), 2), min(sample_weight) FROM training_examples"
    assert tables.execute(drawn).fetchone() == (0.2, 1.0)  # each sale beside four articles that were not bought

    with pytest.raises(InputError, match=r"dates: \[2026-02-12, 2026-02-17\]\}`"):  # a Tuesday without a file
        run_night(shop, NIGHT + dt.timedelta(days=1))
    assert tables.execute(served).fetchall() == [("counter", 91, 1, 10, 910)]
