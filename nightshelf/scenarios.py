"""The surfaces with their shelves, and what orders these: the part `scenarios` of a shop file."""

from typing import Annotated

from pydantic import Field, field_validator

from nightshelf.exclusions import acted_on
from nightshelf.generators import Candidates
from nightshelf.yamlfile import Name, Strict


class Fresh(Strict):
    """A new item's score rises by the share `boost` on the day of its launch, by less each day, and by nothing after `days`."""

    days: int = Field(ge=1, le=365)
    boost: float = Field(gt=0, le=10)


class Rerank(Strict):
    """What acts on the order of a shelf beside the score (pipelines/rerank.py).

    diversity: weight of likeness to what stands above, against the score. most_per: column of items → most places. repeats:
    share of its score that an item loses for each shelf of an earlier scenario that it stands on. explore: share of the places
    that go to new items by chance. fresh: what new items gain. least: column of items → value → the share of the places that
    items with it have at least.
    """

    diversity: float = Field(0.0, ge=0, lt=1)
    most_per: dict[str, Annotated[int, Field(ge=1)]] = Field({})
    repeats: float = Field(0.0, ge=0, lt=1)
    explore: float = Field(0.0, ge=0, le=0.5)
    fresh: Fresh | None = None
    least: dict[str, dict[str, Annotated[float, Field(gt=0, le=1)]]] = Field({})

    @field_validator("least")
    @classmethod
    def _room_for_all(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for column, shares in value.items():
            if sum(shares.values()) > 1 + 1e-9:
                raise ValueError(f"{column}: the shares sum to {sum(shares.values()):g}, more than all places")
        return value


class Scenario(Strict):
    """A surface with its shelf: how long, what it is ranked by, what it must not show, what it chooses from, what else orders it.

    utility: task → what an outcome is worth. rank_by: the weights of the tasks' predictions, where other ones rank better than
    the worth does (`nightshelf weights` looks for them). anchor: the act (`viewed`, `cart` …) that makes an item an anchor;
    with it, each item of the catalogue gets a shelf for whoever did that with it last, beside the shelves of users.
    """

    top_n: int = Field(20, ge=1, le=1000)
    utility: dict[str, float]
    rank_by: dict[str, float] = Field({})
    exclude: list[str] = Field([])
    candidates: Candidates = Candidates()
    rerank: Rerank = Rerank()
    anchor: Name | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Return the weights that shelves are ranked by."""
        return self.rank_by or self.utility

    @field_validator("exclude")
    @classmethod
    def _known_rules(cls, rules: list[str]) -> list[str]:
        for rule in rules:
            acted_on(rule)
        return rules
