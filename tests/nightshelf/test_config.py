import datetime as dt
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from nightshelf.config import load_shop
from nightshelf.errors import InputError
from nightshelf.raw_logs import Csv
from nightshelf.yamlfile import load_model

DEMO = Path(__file__).resolve().parents[2] / "conf/shops/demo.yaml"


def altered(tmp_path: Path, old: str, new: str) -> Path:
    text = DEMO.read_text()
    assert old in text
    path = tmp_path / "shop.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("shop_file", sorted(DEMO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_shop_file_is_valid(shop_file: Path) -> None:
    assert load_shop(shop_file).shop == shop_file.stem


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("late_by_days: 2", "late_by_dayz: 2", ["late_by_dayz", ":15:", "did you mean 'late_by_days'?"]),
        ("timezone: Asia/Shanghai\n", "", ["'timezone' is missing"]),
        (
            "columns: {user_id: uid",
            "colums: {user_id: uid",
            ["unknown key 'sources.0.colums'", "did you mean 'columns'?"],
        ),
        (
            "{event: cart,",
            "{event: basket,",
            ["tasks.cart.event: no log has 'basket'", "cart, click, impression, purchase"],
        ),
        ("title: title", "titel: title", ["items.columns: 'titel' is no column", "did you mean 'title'?"]),
        ("item_id: sku, title: title", "title: title", ["items.columns", "'item_id' is missing"]),
        ("user_id: user_id, age_band", "age_band", ["users.columns", "'user_id' is missing"]),
        ("timezone: Asia/Shanghai\n", "timezone: Mars/Base\n", ["timezone", "no time zone"]),
        ("label_window: 1h", "label_window: 1 hour", ["tasks.click.label_window", "not a duration"]),
        ("given: click, label_window: 1d", "given: clack, label_window: 1d", ["clack", "no other task"]),
        ("utility: {click: 1,", "utility: {clik: 1,", ["clik", "is no task"]),
        ("utility: {click: 1, cart: 3, purchase: 20}", "utility: {click: 0}", ["utility weighs nothing", "click: 1"]),
        (
            "utility: {click: 1, cart: 3, purchase: 20}",
            "utility: {click: 1}, rank_by: {click: 0, cart: 0}",
            ["home_feed.rank_by weighs nothing", "take rank_by out"],
        ),
        ("utility: {click: 1, cart: 3, purchase: 20}", "utility: {click: .nan}", ["utility.click = nan", "a number"]),
        ("scenario: home_feed", "scenario: homefeed", ["homefeed", "is no scenario"]),
        ("{user_id: uid, item_id: sku, event_ts: ts,", "{user_id: uid, item_id: sku,", ["event_ts", "is missing"]),
        ("propensity: prop", "propensty: prop", ["propensty", "unknown event column"]),
        ("format: jsonl", "format: xml", ["sources.0.format", "xml"]),
        ("history_days: 14", "history_days: 1", ["history_days", "1"]),
        ("name: search_log", "name: home_feed_log", ["two sources"]),
        (
            "[purchased_30d, out",
            "[purchased_30, out",
            ["home_feed.exclude", "'purchased_30' is no rule", "purchase_30d"],
        ),
        ("home_feed:    {top_n: 20,", "home_feed: {top_n: 20, rerank: {fresh: {days: 0, boost: 1}},", ["fresh.days"]),
        (
            "[purchased_30d, out",
            "[liked_9d, out",
            ["'liked_9d': no log has 'liked'", "cart, click, impression, purchase"],
        ),
        ("privacy:", "exports: [{to: redis, url: x}]\nprivacy:", ["exports", "url"]),
        ("name: search_log", "name: items", ["'items'", "another part of the shop file"]),
        ("quarantine:", "checks: {rows_warn: [2, 0.5]}\nquarantine:", ["checks.rows_warn", "lower bound first"]),
        (
            "timestamp: {format: iso8601}",
            "timestamp: {format: yyyy-MM-ddTHH:mm:ss}",
            ["'T' is no part of a time pattern"],
        ),
        ("timestamp: {format: iso8601}", "timestamp: {format: yyyy-MM-dd HHH}", ["'HHH'", "write epoch_s"]),
        ("timestamp: {format: iso8601}", "timestamp: {format: iso8601x}", ["is no part of a time pattern"]),
        ("timestamp: {format: iso8601}", "timestamp: {format: 'HH:mm'}", ["names no day"]),
        ('"test_.*"', '"test_("', ["test_users", "no regular expression"]),
        (
            "name: search_log\n",
            "name: search_log\n    negative_quantity: cancels\n",
            ["`negative_quantity: cancels` needs a column for 'quantity'"],
        ),
        ("repeats_within: 5s", "negative_quantity: cancels\n    repeats_within: 5s", ["contradict each other"]),
        ("kind: regression, ", "", ["a regression needs"]),
        ("engine: spark, master", "engine: sail, master", ["`master` and `engine: sail` both say where the jobs run"]),
        ("engine: spark, master", "remote: sc://h:1, master", ["`master` and `remote` both say where the jobs run"]),
        (
            'engine: spark, master: "local[*]"',
            "engine: sail, remote: sc://h:1",
            ["Sail runs inside the night's own process"],
        ),
        (
            "top_n: 20, utility",
            "top_n: 20, candidates: {quotas: {relatd: 40}}, utility",
            ["scenarios.home_feed.candidates.quotas", "'relatd' is no generator", "did you mean 'related'?"],
        ),
        ("top_n: 20, utility", "top_n: 20, candidates: {quota: {related: 40}}, utility", ["did you mean 'quotas'?"]),
        ("top_n: 20, utility", "top_n: 20, candidates: {at_most: 0}, utility", ["at_most", "greater than"]),
        (
            "top_n: 20, utility",
            "top_n: 20, candidates: {quotas: {two_tower: 40}}, utility",
            ["scenarios.home_feed.candidates.quotas", "'two_tower' without a model", "add `retrieval:"],
        ),
        (
            "top_n: 20, utility",
            "top_n: 20, candidates: {quotas: {popular: 19}}, utility",
            ["'popular' = 19 fills no shelf of 20", "write 20 or more"],
        ),
        (
            "top_n: 20, utility",
            "top_n: 20, candidates: {quotas: {fresh: 0}}, rerank: {explore: 0.1}, utility",
            ["'fresh' = 0 leaves rerank.explore nothing"],
        ),
        ('master: "local[*]"', "remote: h:15002", ["spark.remote = 'h:15002'", "write sc://host:port"]),
        ('master: "local[*]"', "driver_memory: lots", ["'lots'", "write one such as 512m or 2g"]),
    ],
)
def test_a_mistake_is_told_with_its_place_and_remedy(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_shop(altered(tmp_path, old, new))
    message = str(error.value)
    assert "shop.yaml:" in message
    for part in told:
        assert part in message


def test_a_file_that_is_no_yaml_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1, 2")
    with pytest.raises(InputError, match="is not YAML"):
        load_shop(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match="holds no keys"):
        load_shop(tmp_path / "list.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_shop(tmp_path / "none.yaml")


def test_home_is_overridden_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path / "elsewhere"))
    assert load_shop(DEMO).home == tmp_path / "elsewhere"


def test_the_master_is_overridden_by_the_environment_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTSHELF_SPARK_MASTER", "spark://host:7077")
    assert load_shop(DEMO).spark.master == "spark://host:7077"
    for place in ("engine: sail", "remote: sc://host:15002"):
        file = altered(tmp_path, 'engine: spark, master: "local[*]"', place)
        with pytest.raises(InputError, match=f"{place}.* and .NIGHTSHELF_SPARK_MASTER = spark://host:7077 both say"):
            load_shop(file)
    secret = altered(tmp_path, 'engine: spark, master: "local[*]"', "remote: sc://host:15002/;token=secret")
    with pytest.raises(InputError, match="sc://host:15002} and") as told:
        load_shop(secret)
    assert "secret" not in str(told.value)


def test_an_anchor_is_an_act_that_the_logs_tell_of(tmp_path: Path) -> None:
    assert load_shop(DEMO).anchors == {"product_page": "viewed", "cart": "cart", "checkout": "cart"}
    for anchor in ("impression", "like"):
        file = altered(tmp_path, "anchor: viewed", f"anchor: {anchor}")
        with pytest.raises(
            InputError, match=f"scenarios.product_page.anchor: no log tells of '{anchor}'; known: .*viewed"
        ):
            load_shop(file)
    with pytest.raises(InputError, match="no log tells of 'viewed'; known: cart, click, purchase"):
        load_shop(altered(tmp_path, "anchor_item_id: page_of, ", ""))


def test_what_is_bought_again_is_an_outcome_of_some_log(tmp_path: Path) -> None:
    text = "rebuy: {event: purchase}\nnegatives: impressions"
    shop = load_shop(altered(tmp_path, "negatives: impressions", text))
    assert shop.rebuy
    assert shop.rebuy.days == 365
    for event in ("order", "impression"):
        with pytest.raises(InputError, match=f"rebuy.event: no log tells of '{event}'; known: cart, click, purchase"):
            load_shop(altered(tmp_path, "negatives: impressions", text.replace("purchase", event)))
    assert shop.generators[0] == "rebuy"
    quotas = ("top_n: 20,", "top_n: 20, candidates: {quotas: {rebuy: 5}},")
    with pytest.raises(InputError, match="nobody proposes 'rebuy' until"):
        load_shop(altered(tmp_path, *quotas))


def test_closed_days_are_dates_or_weekdays(tmp_path: Path) -> None:
    closed = "closed: {weekdays: [saturday], dates: [2026-02-17]}\nnegatives: impressions"
    shop = load_shop(altered(tmp_path, "negatives: impressions", closed))
    assert shop.is_closed(dt.date(2026, 2, 14))
    assert shop.is_closed(dt.date(2026, 2, 17))
    assert not shop.is_closed(dt.date(2026, 2, 16))
    line = shop.closed.line_with(dt.date(2026, 2, 3))
    assert line == "closed: {weekdays: [saturday], dates: [2026-02-03, 2026-02-17]}"
    assert yaml.safe_load(line)["closed"]["dates"] == sorted([dt.date(2026, 2, 3), *shop.closed.dates])
    with pytest.raises(InputError, match="no weekday"):
        load_shop(altered(tmp_path, "negatives: impressions", "closed: {weekdays: [caturday]}"))


class Small(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine with other work
def test_any_content_is_either_read_or_told_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    path = tmp_path_factory.mktemp("any") / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError):
        load_model(path, Small)


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("price", "cart_1d, out_of_stock], anchor: cart}\n  checkout", "price_over_9.5], anchor: cart}\n  checkout"),
        ("launch_date", "home_feed:    {top_n: 20,", "home_feed: {top_n: 20, rerank: {fresh: {days: 7, boost: 1}},"),
    ],
)
def test_a_rule_that_asks_the_catalogue_needs_the_column(tmp_path, column, old, new):
    text = DEMO.read_text()
    assert text.count(old) == 1
    with_rule, file = text.replace(old, new), tmp_path / "shop.yaml"
    file.write_text(with_rule)
    assert load_shop(file)
    name = {"price": "price: price, ", "launch_date": ", launch_date: launched"}[column]
    assert with_rule.count(name) == 1
    file.write_text(with_rule.replace(name, ""))
    with pytest.raises(InputError, match=f"asks the catalogue's {column}, of which the shop file says nothing"):
        load_shop(file)


def test_a_shop_without_impressions_must_draw_what_was_not_chosen(tmp_path: Path) -> None:
    shop = {
        "shop": "kiosk", "home": str(tmp_path), "timezone": "UTC",
        "sources": [
            {"name": "till", "path": "till/*.csv", "format": "csv", "scenario": "counter", "event_type": "purchase"}
            | {"columns": {"user_id": "u", "item_id": "i", "event_ts": "t"}}
        ],
        "tasks": {"purchase": {"event": "purchase", "label_window": "1d"}},
        "scenarios": {"counter": {"top_n": 10, "utility": {"purchase": 1}}},
    }  # fmt: skip
    file = tmp_path / "kiosk.yaml"
    file.write_text(yaml.safe_dump(shop))
    with pytest.raises(InputError, match=r"no log has impressions; write `negatives: \{sampled: 4\}`"):
        load_shop(file)
    file.write_text(yaml.safe_dump(shop | {"negatives": {"sampled": 4}}))
    assert load_shop(file).event_types == ["purchase"]


@pytest.mark.parametrize(
    ("encoding", "error"), [("latin-7b", "no encoding 'latin-7b'"), ("utf-16", "line breaks are of several bytes")]
)
def test_an_encoding_that_cannot_be_read_is_told_at_once(encoding, error):
    with pytest.raises(ValueError, match=error):
        Csv(encoding=encoding)
    names = {"utf8": "UTF-8", "utf-8-sig": "UTF-8", "latin-1": "ISO-8859-1", "windows-1252": "windows-1252"}
    assert {name: Csv(encoding=name).encoding for name in names} == names
