"""The generators of candidates, and how much of what each one proposes a scenario ranks."""

from typing import Annotated

from pydantic import Field, field_validator

from nightshelf.yamlfile import Strict, nearest

# Where several generators propose one item to one user, the first of these is named as its source.
GENERATOR_ORDER = (
    "rebuy",
    "own_history",
    "related",
    "next_item",
    "affinity",
    "brand",
    "two_tower",
    "graph_walk",
    "fresh",
    "popular",
)


class Candidates(Strict):
    """What a scenario ranks of what is proposed.

    quotas: generator → the best so many of its proposals to a user; those of generators that are not named are learned from
    past days. at_most: candidates a user that learned quotas may spend on average, an item counting once a generator.
    """

    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field({})
    at_most: int = Field(500, ge=1)

    @field_validator("quotas")
    @classmethod
    def _known_generators(cls, quotas: dict[str, int]) -> dict[str, int]:
        for name in quotas:
            if name not in GENERATOR_ORDER:
                raise ValueError(f"{name!r} is no generator; {nearest(name, list(GENERATOR_ORDER))}")
        return quotas
