"""The truth against the behaviour that it sums up, and the score of shelves against it."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.identity import user_key
from nightshelf.tasks import Task
from simulation import behaviour
from simulation.anchor_score import score_item_shelves
from simulation.behaviour import CHECKOUT, SCENARIOS
from simulation.catalogue import items_on
from simulation.people import DRIFT_KEEPS, People, UserState, begin_day, expected_intent
from simulation.plan import people_of
from simulation.reference_shelves import popularity_scores, read_record
from simulation.rows import ADD, CLICK, ORDER, make_rows
from simulation.score import allowed_items, score_shelves
from simulation.seeds import random_for
from simulation.traffic import draw_requests, expected_contexts, expected_taste, pair_signals, react
from simulation.truth import VISIBLE, Truth, load_truth

AS_OF_DATE = dt.date(2026, 2, 7)
TOMORROW = AS_OF_DATE + dt.timedelta(days=1)
KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def truth(simulated_shop: Shop) -> Truth:
    return load_truth(simulated_shop)


@pytest.fixture(scope="module")
def utilities(truth: Truth) -> dict[str, np.ndarray]:
    return truth.utilities(np.arange(truth.plan.users), list(SCENARIOS), TOMORROW)


def test_the_utility_of_a_user_is_the_mean_over_his_anchors(truth: Truth, utilities: dict[str, np.ndarray]) -> None:
    """One user's anchors with their chances: summed up, they must give what is expected of no anchor in particular."""
    day, (state, _) = truth.plan.day(TOMORROW), truth.state(truth.plan.day(AS_OF_DATE), 0)
    season = items_on(truth.catalogue, day).season
    for number in (3, 77):
        morning = {k: v[[number]] if isinstance(v, np.ndarray) else v for k, v in vars(state).items()}
        some = UserState(**morning | {"drift": DRIFT_KEEPS * morning["drift"]})
        wishes = expected_taste(some, season, some.drift)
        for name in ("product_page", "cart"):
            chance = expected_contexts(SCENARIOS.index(name), wishes, expected_intent(some, wishes), some, day)
            beside = truth.anchor_utilities(np.array([number]), [name], TOMORROW)[name]
            np.testing.assert_allclose(chance[0, :-1] @ beside, utilities[name][number], rtol=1e-4)


def test_the_best_shelves_of_items_close_the_whole_gap_and_the_popular_ones_none(truth: Truth) -> None:
    catalogue, names = truth.catalogue, list(truth.shop.anchors)
    users = np.sort(
        random_for(truth.plan.seed, "anchors", truth.plan.day(AS_OF_DATE)).permutation(truth.plan.users)[:300]
    )
    values = truth.anchor_utilities(users, names, TOMORROW)
    today = items_on(catalogue, truth.plan.day(AS_OF_DATE))
    record = read_record(truth, days_back(AS_OF_DATE, 14))

    def shelves(scores: Callable[[str, int], np.ndarray]) -> pa.Table:
        rows = []
        for name in names:
            for anchor in range(catalogue.size):
                score = np.where(today.on_sale & (today.stock > 0), scores(name, anchor), -np.inf)
                score[anchor] = -np.inf
                rows += [
                    (name, anchor, rank, item) for rank, item in enumerate(np.argsort(-score, kind="stable")[:10], 1)
                ]
        scenario, anchor, rank, item = zip(*rows, strict=True)
        ids = np.array(truth.item_ids)
        columns = {"scenario": scenario, "anchor_item_id": ids[list(anchor)], "rank": rank, "item_id": ids[list(item)]}
        return pa.table(columns)

    best = shelves(lambda name, anchor: values[name][catalogue.leaf[anchor]])
    popular = shelves(lambda name, anchor: popularity_scores(record, SCENARIOS.index(name)))
    for given, gap in ((best, 1.0), (popular, 0.0)):
        scores = score_item_shelves(truth.shop, given, AS_OF_DATE, users_sampled=300)
        assert [row["gap_closed"] for row in scores.values()] == pytest.approx([gap] * len(names), abs=1e-6)


def test_utility_is_the_mean_over_simulated_mornings(truth: Truth, utilities: dict[str, np.ndarray]) -> None:
    """Draw many next days with the simulator's own code; the mean worth of a first place must be the truth's."""
    day, catalogue = truth.plan.day(TOMORROW), truth.catalogue
    people, (state, _) = people_of_first_chunk(truth), truth.state(day - 1, 0)
    item_day, clock = items_on(catalogue, day), truth.plan.clock(day)
    items = np.arange(0, catalogue.size, 7)
    drawn = {name: [np.zeros(len(items)), np.zeros(len(items))] for name in SCENARIOS}
    for repeat in range(6):
        rng = random_for(repeat, "many mornings")
        morning = begin_day(state, catalogue, item_day.season, rng)
        requests = draw_requests(catalogue, people, morning, item_day.season, clock, 25.0, rng)
        for number, name in enumerate(SCENARIOS):
            asked = np.flatnonzero(requests.scenario == number)[:1500]
            user = requests.user[asked]
            signals = pair_signals(catalogue, people, morning, item_day, day, user[:, None], items[None, :])
            near = catalogue.nearness[requests.context[asked][:, None], catalogue.leaf[items][None, :]]
            chance = behaviour.chances(np.full(near.shape, number), signals, near)
            weights = truth.shop.scenarios[name].utility
            in_cart = 0.0 if number == CHECKOUT else weights.get("cart", 0.0)
            later = chance.cart * (in_cart + weights["purchase"] * chance.purchase)
            drawn[name][0] += (behaviour.examination(number, 1) * chance.click * (weights["click"] + later)).sum(axis=0)
            drawn[name][1] += utilities[name][np.ix_(user, items)].sum(axis=0)
    for name, (simulated, true) in drawn.items():
        assert simulated.sum() == pytest.approx(true.sum(), rel=0.03), name
        assert np.corrcoef(simulated, true)[0, 1] > 0.99, name


def people_of_first_chunk(truth: Truth) -> People:
    return people_of(truth.plan, 0)


def test_outcomes_are_drawn_with_the_chances_of_the_model(truth: Truth) -> None:
    count, rng = 200_000, np.random.default_rng(3)
    scenario = rng.integers(0, 6, count)
    shown = make_rows(
        count,
        source=scenario,
        scenario=scenario,
        kind=0,
        user=1,
        item=np.arange(count),
        position=1,
        ts=truth.plan.clock(0).starts[0],
    )
    chance = behaviour.Chances(np.full(count, 0.4), np.where(scenario == CHECKOUT, 1.0, 0.5), np.full(count, 0.25))
    rows = react(shown, chance, truth.plan.clock(0), rng)
    expected = 0.4 * behaviour.FIRST_EXAMINED * count
    assert (rows["kind"] == CLICK).sum() == pytest.approx(expected, rel=0.02)
    assert (rows["kind"] == ADD).sum() == pytest.approx(expected * 0.5 * 5 / 6, rel=0.03)
    assert (rows["kind"] == ORDER).sum() == pytest.approx(expected * 0.25 * (0.5 * 5 + 1) / 6, rel=0.04)


def test_utility_is_asked_by_id_and_day(truth: Truth, utilities: dict[str, np.ndarray]) -> None:
    some = truth.utility(["u0000007", "u0001234", "u0000003"], "search", TOMORROW)
    assert np.allclose(some, utilities["search"][[7, 1234, 3]], rtol=1e-5)
    assert some.shape == (3, len(truth.item_ids))
    assert np.all(some > 0) and np.all(some < 24)


def test_what_was_bought_changes_the_truth(truth: Truth) -> None:
    """A durable good is not wanted twice; an item in the cart is wanted more."""
    day, catalogue = truth.plan.day(TOMORROW), truth.catalogue
    item_day, people = items_on(catalogue, day), people_of_first_chunk(truth)
    state, _ = truth.state(day - 1, 0)
    item = int(np.flatnonzero(catalogue.rebuy_days[catalogue.leaf] == 0)[0])
    user, leaf = np.array([5]), catalogue.leaf[item]
    bought = replace(state, bought_leaf=state.bought_leaf.record(user * catalogue.leaf_count + leaf, day - 1, 0))
    carted = replace(state, carted=state.carted.record(user * catalogue.size + item, day - 1, 0))
    signals = [
        pair_signals(catalogue, people, s, item_day, day, user, np.array([item])) for s in (state, bought, carted)
    ]
    plain, after, waiting = (behaviour.click_logit(0, s)[0] for s in signals)
    assert after < plain - 1
    assert waiting > plain + 0.3


def test_unknown_names_and_days_are_refused(truth: Truth, simulated_shop: Shop) -> None:
    with pytest.raises(InputError, match="no user of the simulated shop"):
        truth.utility(["u9999999"], "search", TOMORROW)
    with pytest.raises(InputError, match="is not simulated"):
        truth.utility(["u0000001"], "kiosk", TOMORROW)
    with pytest.raises(InputError, match="was not simulated"):
        truth.utility(["u0000001"], "search", TOMORROW + dt.timedelta(days=1))
    with pytest.raises(InputError, match="no truth here"):
        load_truth(simulated_shop.model_copy(update={"home": simulated_shop.home / "elsewhere"}))
    scenario = simulated_shop.scenarios["search"].model_copy(update={"utility": {"stars": 1.0}})
    tasks = {**simulated_shop.tasks, "stars": Task(event="stars", label_window="1d")}
    with pytest.raises(InputError, match="knows no task 'stars'"):
        load_truth(simulated_shop.model_copy(update={"scenarios": {"search": scenario}, "tasks": tasks}))


def shelves_from(truth: Truth, values: dict[str, np.ndarray], users: np.ndarray) -> pa.Table:
    ids, items = truth.user_ids(), np.array(truth.item_ids)
    on_sale = items_on(truth.catalogue, truth.plan.day(AS_OF_DATE))
    parts = []
    for name, value in values.items():
        masked = np.where(on_sale.on_sale & (on_sale.stock > 0), value[users], -1.0)
        top = np.argsort(-masked, axis=1)[:, :12]
        keys = np.repeat([user_key(ids[user], KEY) for user in users], 12)
        ranks = np.tile(np.arange(1, 13), len(users))
        parts.append(
            pa.table({"user_key": keys, "scenario": [name] * len(keys), "rank": ranks, "item_id": items[top.ravel()]})
        )
    return pa.concat_tables(parts)


def test_scores_run_from_popularity_to_the_best_shelf(truth: Truth, utilities: dict[str, np.ndarray]) -> None:
    users = np.arange(0, 2000, 4)
    report = score_shelves(truth.shop, shelves_from(truth, utilities, users), AS_OF_DATE, 300, KEY)
    assert set(report["gap_closed"]) == set(truth.shop.scenarios)
    for name, scores in report["scenarios"].items():
        assert scores["best"] >= scores["ceiling"] > scores["popularity"] > 0, name
        assert scores["best"] > 3 * scores["random"], name
        assert scores["ceiling_gap_closed"] > 0.7, name
        # The shelf by true utility is the best one, but for goods bought in the last month.
        assert 0.93 < scores["gap_closed"] < 1.05, name
        assert scores["popularity"] < 0.6 * scores["best"], name
        assert 0.8 < scores["unpredictable"]["click"] < 1, name
    again = score_shelves(truth.shop, shelves_from(truth, utilities, users), AS_OF_DATE, 300, KEY)
    assert again == report


def test_a_short_shelf_scores_less_and_a_foreign_one_is_refused(truth: Truth, utilities: dict[str, np.ndarray]) -> None:
    users = np.arange(0, 2000, 20)
    shelves = shelves_from(truth, {"search": utilities["search"]}, users)
    whole = score_shelves(truth.shop, shelves, AS_OF_DATE, 50, KEY)["gap_closed"]["search"]
    half = score_shelves(truth.shop, shelves.filter(pa.compute.less_equal(shelves["rank"], 5)), AS_OF_DATE, 50, KEY)
    assert half["gap_closed"]["search"] < 0.75 * whole
    with pytest.raises(InputError, match="no shelf belongs"):
        score_shelves(truth.shop, shelves, AS_OF_DATE, 50, b"another key of thirty-two bytes!!")


def test_a_model_of_the_visible_knows_less(truth: Truth, utilities: dict[str, np.ndarray]) -> None:
    visible = truth.utilities(np.arange(50), ["home_feed"], TOMORROW, VISIBLE)["home_feed"]
    true = utilities["home_feed"][:50]
    assert not np.allclose(visible, true)
    assert np.corrcoef(np.log(visible).ravel(), np.log(true).ravel())[0, 1] > 0.9


def test_what_lies_in_the_cart_is_allowed_on_no_cart_shelf(truth: Truth) -> None:
    assert "cart_1d" in truth.shop.scenarios["cart"].exclude
    users = np.arange(truth.plan.users)
    record = read_record(truth, [AS_OF_DATE])
    is_carted = record.kind == ADD
    assert is_carted.sum() > 20
    carted = record.user[is_carted], record.item[is_carted]
    allowed = {name: allowed_items(truth, name, users, AS_OF_DATE) for name in ("cart", "home_feed")}
    assert not allowed["cart"][carted].any()
    only_for_the_cart = allowed["home_feed"] & ~allowed["cart"]
    assert set(zip(*np.nonzero(only_for_the_cart), strict=True)) <= set(zip(*carted, strict=True))
    assert only_for_the_cart.any()
