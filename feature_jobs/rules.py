"""The rules of quarantine. A row goes there under the first rule that it breaks, in the order in which they stand here."""

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_jobs.numbers import is_no_number, number_text
from nightshelf.quarantine import Quarantine
from nightshelf.raw_logs import CANCELLATION, FINITE, LAST_POSITION, NUMBERS, WITHOUT_USER, Source, ValueMap

# A row of a file that holds all days, and which belongs to a day that this run does not write: counted, not set aside.
OTHER_DAYS = "other_days"
BOT = "bot"
ORPHAN = "orphan_outcome"
UNKNOWN_ITEM = "unknown_item"
# A bot picks items at random; that some are not in the catalogue says less about its rows than that it is a bot.
BY_SOMEBODY = f"(reason is null or reason = '{UNKNOWN_ITEM}')"
ABSENT = " is absent"
TEXTS = ("user_id", "item_id", "request_id", "query", "anchor_item_id")
INTEGERS = ("position", "quantity")
_FIRST_MOMENT = "2000-01-01 00:00:00"
_EVIDENCE_LENGTH = 200


@dataclass(frozen=True)
class Rule:
    """A reason, when it holds, and the value that shows it."""

    reason: str
    is_broken: Column
    evidence: Column


def judge(rules: list[Rule]) -> Column:
    """Return a struct (reason, evidence) of the first broken rule, or null."""

    def verdict(rule: Rule) -> Column:
        """Return the struct of a broken rule: its evidence as text, cut to _EVIDENCE_LENGTH, empty where there is none."""
        # Never null: Sail refuses a struct whose field is so in one rule alone
        evidence = F.coalesce(F.substring(rule.evidence.cast("string"), 1, _EVIDENCE_LENGTH), F.lit(""))
        return F.struct(F.lit(rule.reason).alias("reason"), evidence.alias("evidence"))

    chain = F.when(rules[0].is_broken, verdict(rules[0]))
    return reduce(lambda so_far, rule: so_far.when(rule.is_broken, verdict(rule)), rules[1:], chain)


def row_rules(source: Source, limits: Quarantine) -> list[Rule]:
    """Return the rules that need one row alone, over the columns of feature_jobs.events.read_events."""
    return [
        Rule("unparsable", ~F.col("is_parsable"), F.lit(f"no {source.format} row of this log")),
        _absent(
            WITHOUT_USER if source.without_user == "expected" else "missing_key_field",
            "user_id",
            source.columns["user_id"],
        ),
        *(_absent("missing_key_field", name, source.columns[name]) for name in ("item_id", "event_ts")),
        *_mapping_rules("unknown_event_type", "event_type", source.event_type),
        *_mapping_rules("unknown_scenario", "scenario", source.scenario),
        *_time_rules(source),
        *_number_rules(source, limits),
        *(_length_rule(name, limits.max_text) for name in TEXTS if name in source.columns),
        # Last: what else is wrong with it, it takes nothing back
        *([Rule(CANCELLATION, F.col("quantity") < 0, _shown("quantity"))] if source.cancels else []),
    ]


def _absent(reason: str, name: str, column: str) -> Rule:
    return Rule(reason, F.col(f"{name}_value").isNull(), F.lit(column + ABSENT))


def _mapping_rules(reason: str, name: str, value: str | ValueMap) -> list[Rule]:
    if isinstance(value, str) or value.default is not None:
        return []
    return [_absent(reason, name, value.column), Rule(reason, F.col(name).isNull(), F.col(f"{name}_value"))]


def _time_rules(source: Source) -> list[Rule]:
    seen = F.concat_ws(" = ", *(F.col(name).cast("string") for name in ("event_ts_value", "event_ts")))
    is_impossible = (
        F.col("event_ts").isNull()
        | (F.col("event_ts") < F.lit(_FIRST_MOMENT).cast("timestamp"))
        | (F.col("event_date") > F.col("as_of_date"))
    )
    is_late = F.col("event_date") < F.date_sub("as_of_date", source.late_by_days)
    return [Rule("impossible_timestamp", is_impossible, seen), Rule("too_late", is_late, seen)]


def _number_rules(source: Source, limits: Quarantine) -> list[Rule]:
    names = [name for name in NUMBERS if name in source.columns]
    most = {"position": LAST_POSITION, "quantity": limits.max_quantity, "price": limits.max_price, "propensity": 1.0}
    rules = []
    for name in names:
        text = F.col(f"{name}_value").cast("string")
        shown = F.concat(F.lit(f"{name} = "), text)
        rules.append(Rule("not_a_number", is_no_number(text, F.col(name)), shown))
    # Half a piece would be none: what is sold by weight is one piece of its price
    rules += [Rule("not_whole", F.col(name) != F.round(name), _shown(name)) for name in names if name in INTEGERS]
    faults = [name for name in names if not (name == "quantity" and source.cancels)]
    rules += [Rule("negative_number", F.col(name) < 0, _shown(name)) for name in faults]
    for name in names:
        # Spark takes NaN for the largest number, so it needs no condition of its own
        rules.append(Rule("absurd_number", F.col(name) > F.lit(float(most.get(name, FINITE))), _shown(name)))
    return rules


def _length_rule(name: str, most: int) -> Rule:
    length = F.length(name)
    return Rule("text_too_long", length > most, F.format_string(f"{name} has %d characters", length))


def _shown(name: str) -> Column:
    return F.format_string(f"{name} = %s", number_text(F.col(name)))


def shop_rules(patterns: list[str]) -> list[Rule]:
    """Return the rules that follow: test accounts (a pattern fits the whole id), items that no catalogue of the window has."""
    rules = []
    if patterns:
        rules.append(
            Rule(
                "test_user",
                is_test_user(F.col("user_id"), patterns),
                F.lit(f"the user id fits {' or '.join(patterns)}"),
            )
        )
    rules.append(Rule(UNKNOWN_ITEM, ~F.col("is_known_item"), F.concat(F.lit("item "), F.col("item_id"))))
    return rules


def is_test_user(user_id: Column, patterns: list[str]) -> Column:
    """Say whether one of the patterns (Java regular expressions) fits the whole user id."""
    return user_id.rlike(f"^(?:{'|'.join(f'(?:{pattern})' for pattern in patterns)})$") if patterns else F.lit(False)
