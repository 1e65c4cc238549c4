"""How long shelves can be, whatever is excluded: what the audit holds their length against.

A user's candidates may be few. A user's shelf is never shorter than what popular items alone fill, of which no quota takes too
many (pipelines/popular_places.py), and an item's never shorter than what the catalogue allows.
"""

from dataclasses import dataclass

from nightshelf.blocked import blocked_items
from nightshelf.exclusions import kept_from_all
from pipelines.popular_places import popular_items
from pipelines.stage import Night
from pipelines.validate import connect


@dataclass(frozen=True)
class Length:
    """Places that are filled on any shelf of a scenario, and on that of a stranger, for whom nothing is excluded but items."""

    of_any: int
    of_stranger: int


def user_shelf_lengths(night: Night) -> dict[str, Length]:
    """Return the lengths of users' shelves in the scenarios that the night makes shelves of."""
    return {
        name: _length(night, name, len(popular.places), popular.acted_on)
        for name, popular in popular_items(night).items()
        if name in (night.scenarios or night.shop.scenarios)
    }


def item_shelf_lengths(night: Night) -> dict[str, Length]:
    """Return the lengths of items' shelves, on which the item itself has no place."""
    connection, blocked, lengths = connect(night), sorted(blocked_items(night.shop)), {}
    items = night.warehouse.read("items", [night.as_of_date], ("item_id", "stock", "price"))
    connection.register("items", items)
    for name in night.shop.anchors:
        if name in (night.scenarios or night.shop.scenarios):
            away = kept_from_all(night.shop.scenarios[name].exclude)
            query = f"SELECT count(*) FROM items WHERE NOT ({away}) AND NOT list_contains($blocked, item_id)"
            ((shown,),) = connection.execute(query, {"blocked": blocked}).fetchall()
            lengths[name] = _length(night, name, shown, 1)
    return lengths


def _length(night: Night, name: str, shown: int, excluded: int) -> Length:
    top_n = night.shop.scenarios[name].top_n
    return Length(min(top_n, max(0, shown - excluded)), min(top_n, shown))
