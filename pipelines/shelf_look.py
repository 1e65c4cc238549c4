"""What the tables of a night know about a user's shelf: its places, who proposed what, and which rule left out what.

The rules are those of the shop file as it is today.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import duckdb

from nightshelf.blocked import blocked_items
from nightshelf.config import Shop
from nightshelf.exclusions import OUT_OF_STOCK, acted_on, item_condition
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY

Row = dict[str, Any]


@dataclass(frozen=True)
class ShelfLook:
    """Questions to the tables of a night about one user in one scenario."""

    tables: duckdb.DuckDBPyConnection
    shop: Shop
    scenario: str
    user: str
    day: dt.date

    @property
    def whose(self) -> dict[str, object]:
        """Return the parameters that name the shelf."""
        return {"day": self.day, "user": self.user, "scenario": self.scenario}

    def ask(self, query: str, **parameters: object) -> list[Row]:
        """Return the rows of a query."""
        cursor = self.tables.execute(query, parameters)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def places(self) -> list[Row]:
        """Return the places: item, predictions, what each adds to the score, who proposed it and who placed it, reason."""
        weights = self.shop.scenarios[self.scenario].weights
        predictions = ", ".join(f'p_{task} AS "{task}"' for task in self.shop.tasks)
        parts = ", ".join(f'round({weight!r} * p_{task}, 6) AS "from_{task}"' for task, weight in weights.items())
        return self.ask(
            f"""
            WITH proposals AS ({_PROPOSALS}), offers AS (
                SELECT item_id, list(DISTINCT generator ORDER BY generator) AS generators FROM proposals GROUP BY item_id)
            SELECT rank, item_id, title, score, {predictions}, {parts}, source,
                list_filter(coalesce(generators, []), lambda name: name <> source) AS also_proposed_by, reason,
                rank_by_score, placed_by, propensity, model_version
            FROM recommendations LEFT JOIN offers USING (item_id)
            LEFT JOIN (SELECT item_id, title FROM items WHERE as_of_date = $day) USING (item_id)
            WHERE as_of_date = $day AND user_key = $user AND scenario = $scenario ORDER BY rank""",
            **self.whose,
        )

    def proposed(self) -> list[Row]:
        """Return how many items each generator proposed, and how many of them nobody else did."""
        return self.ask(
            f"""
            WITH proposals AS ({_PROPOSALS}), alone AS (
                SELECT item_id, count(DISTINCT generator) = 1 AS is_alone FROM proposals GROUP BY item_id)
            SELECT generator, count(DISTINCT item_id) AS items, count(DISTINCT item_id) FILTER (WHERE is_alone) AS alone
            FROM proposals JOIN alone USING (item_id) GROUP BY generator ORDER BY items DESC, generator""",
            **self.whose,
        )

    def excluded(self, places: list[Row]) -> list[Row]:
        """Return the proposed items that the scenario's rules left out, each with the rule.

        What stands on the shelf, whose places these are, no rule left out: such a one is newer than the night.
        """
        rules = self.rules_against(sorted(self.proposed_items() - {row["item_id"] for row in places}))
        query = "SELECT item_id, title FROM items WHERE as_of_date = $day AND item_id IN (SELECT unnest($items))"
        titles = {row["item_id"]: row["title"] for row in self.ask(query, day=self.day, items=list(rules))}
        return [{"item_id": item, "title": titles.get(item), "rule": rule} for item, rule in rules.items()]

    def rules_against(self, items: list[str]) -> dict[str, str]:
        """Return which of these items a rule of the scenario kept off the shelf that night, and by which rule."""
        rules = self.shop.scenarios[self.scenario].exclude
        found: dict[str, str] = {}
        for event, days in (acted for rule in rules if self.user != EVERYBODY and (acted := acted_on(rule))):
            query = """
                SELECT item_id, max(event_date) AS acted_on FROM events
                WHERE user_key = $user AND event_type = $event AND item_id IN (SELECT unnest($items))
                    AND as_of_date <= $day AND as_of_date > $day - $days::INT GROUP BY item_id"""
            rows = self.ask(query, user=self.user, event=event, items=items, day=self.day, days=days)
            said = "bought" if event == "purchase" else event
            found |= {row["item_id"]: f"{said} on {row['acted_on']}" for row in rows}
        for rule in (rule for rule in rules if not acted_on(rule)):
            asked = "SELECT item_id, price FROM items WHERE as_of_date = $day AND item_id IN (SELECT unnest($items))"
            for row in self.ask(f"{asked} AND {item_condition(rule)}", day=self.day, items=items):
                price = "has no price" if row["price"] is None else f"costs {row['price']:g}"
                found[row["item_id"]] = "out of stock" if rule == OUT_OF_STOCK else price
        found |= dict.fromkeys(blocked_items(self.shop).intersection(items), "blocked")
        return dict(sorted(found.items()))

    def proposed_items(self) -> set[str]:
        """Return the items that any generator proposed."""
        rows = self.ask(f"SELECT DISTINCT item_id FROM ({_PROPOSALS})", **self.whose)
        return {row["item_id"] for row in rows}

    def ranked_items(self) -> set[str]:
        """Return the items that any generator proposed within the scenario's quotas."""
        query = f"""
            WITH quotas AS (SELECT generator, quota FROM candidate_quotas WHERE as_of_date = $day AND scenario = $scenario)
            SELECT DISTINCT item_id FROM ({_PROPOSALS}) LEFT JOIN quotas USING (generator)
            WHERE quota IS NULL OR place <= quota"""
        rows = self.ask(query, **self.whose)
        return {row["item_id"] for row in rows}

    def why_absent(self, items: list[str], places: list[Row]) -> dict[str, str]:
        """Say of each item why it was on no place of the shelf, whose places these are."""
        if not places:
            return dict.fromkeys(items, f"not on {self.day}: there was no shelf")
        proposed, ranked, rules = self.proposed_items(), self.ranked_items(), self.rules_against(items)
        other = dict.fromkeys(items, "nobody proposed it")
        other |= {item: "beyond the quota of whoever proposed it" for item in items if item in proposed}
        other |= self.why_outranked([item for item in items if item in ranked], places)
        return {item: f"not on {self.day}: {rules.get(item, other[item])}" for item in items}

    def why_outranked(self, items: list[str], places: list[Row]) -> dict[str, str]:
        """Say of items that were ranked why they have none of these places: for their scores, or for a rule that can have acted.

        The tables keep no score of what has no place. But where the places hold the highest scores of all, no rule has left out
        anything; and a cap that is reached leaves out the rest of its group, whatever the scores.
        """
        outscored = "others ranked higher"
        if {row["rank_by_score"] for row in places} == set(range(1, len(places) + 1)):
            return dict.fromkeys(items, outscored)
        rules, repeated = self.shop.scenarios[self.scenario].rerank, self._repeated(items)
        explored = any(row["placed_by"] == "explore" for row in places)
        acting = [name for name in ("diversity", "least", "fresh") if getattr(rules, name)] + ["explore"] * explored
        found = {}
        for item in items:
            told = [*(f"repeats (it is on {name})" for name in repeated.get(item, [])), *acting]
            found[item] = f"{outscored}, or a rule left it out: {', '.join(told)}" if told else outscored
        return found | self._full(items, places)

    def _repeated(self, items: list[str]) -> dict[str, list[str]]:
        """Return the scenarios before this one on whose shelves of the user each item is, if its rules count them."""
        names = list(self.shop.scenarios)
        earlier = names[: names.index(self.scenario)] if self.shop.scenarios[self.scenario].rerank.repeats else []
        query = """
            SELECT item_id, list(scenario ORDER BY scenario) AS earlier FROM recommendations
            WHERE as_of_date = $day AND user_key = $user AND scenario IN (SELECT unnest($names))
                AND item_id IN (SELECT unnest($items)) GROUP BY item_id"""
        rows = self.ask(query, day=self.day, user=self.user, names=earlier, items=items) if earlier else []
        return {row["item_id"]: row["earlier"] for row in rows}

    def _full(self, items: list[str], places: list[Row]) -> dict[str, str]:
        """Return of each item whose group has all places that a cap allows which cap that is; chance heeds none."""
        placed = [row["item_id"] for row in places if row["placed_by"] != "explore"]
        found = {}
        for column, most in self.shop.scenarios[self.scenario].rerank.most_per.items():
            query = f"""
                WITH known AS (SELECT item_id, "{column}" AS member FROM items WHERE as_of_date = $day)
                SELECT item_id, member FROM known WHERE item_id IN (SELECT unnest($items)) AND member IN (
                    SELECT member FROM known WHERE item_id IN (SELECT unnest($placed)) GROUP BY member HAVING count(*) = $most)"""
            for row in self.ask(query, day=self.day, items=items, placed=placed, most=most):
                found[row["item_id"]] = f"most_per: the shelf has {most} of {column} {row['member']} already"
        return found


# A user without a history of their own is shown what everybody may be.
_PROPOSALS = f"""SELECT item_id, generator, because,
        row_number() OVER (PARTITION BY user_key, scenario, generator ORDER BY generator_score DESC, item_id) AS place
    FROM ({" UNION ALL ".join(f"FROM {table}" for table in CANDIDATE_TABLES)})
    WHERE as_of_date = $day AND user_key IN ($user, '{EVERYBODY}') AND scenario IN ($scenario, '{EVERYBODY}')"""
