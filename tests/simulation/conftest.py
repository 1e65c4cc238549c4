import datetime as dt
from pathlib import Path

import pytest

from nightshelf.config import Shop, load_shop
from simulation.simulate import simulate_shop

FIRST_DAY = dt.date(2026, 2, 1)
USERS, ITEMS, DAYS = 2000, 300, 7  # just large enough for a bot and for the hour that is lost on the sixth day


def shop_at(home: Path) -> Shop:
    return load_shop(Path(__file__).parents[2] / "conf/shops/demo.yaml").model_copy(update={"home": home})


@pytest.fixture(scope="session")
def simulated_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = shop_at(tmp_path_factory.mktemp("simulated"))
    simulate_shop(shop, FIRST_DAY, DAYS, USERS, ITEMS, seed=11)
    return shop
