import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nightshelf.features import request_scenarios
from training.artifact import load_model
from training.data import load_examples
from training.matching import ExposureMatch, HistoryMatch
from training.next_topic import NextTopic, nested_shares
from training.topics import _relative_rates, _shared_levels, fit_topics, request_topics


def test_scenarios_with_a_query_or_a_page_answer_requests(demo_shop):
    assert request_scenarios(demo_shop) == ["search", "product_page"]


def test_the_topic_of_a_request_is_what_it_shows_most():
    request, category = np.array([9, 4, 4, 9, 4, 9, 9]), np.array([2, 5, 3, 2, 5, 7, 7])
    number, first, topic = request_topics(request, category)
    assert number.tolist() == [1, 0, 0, 1, 0, 1, 1]
    assert first.tolist() == [1, 0]
    assert topic.tolist() == [5, 2]  # of two that tie the lower id


def test_shares_by_hand():
    """Two categories 1 and 2; below 1 the leaves 1 and 2, below 2 the leaf 3. Level by level, as one would count."""
    topics = NextTopic([3, 4], scenarios=2, event_memories=1, memories=1)
    topics.reset(np.array([[1, 1], [1, 2], [2, 3]]))
    topics.priors.copy_(torch.tensor([[0.0, 0.8, 0.2, 0.0], [0.0, 0.5, 0.3, 0.2]]))
    topics.set_worth(torch.tensor([2.0, 1.0, 4.0, 3.0]).log())
    every = topics.lineage(torch.tensor([[1, 2, 3], [1, 2, 3]]))
    history, memory = (
        topics.lineage(torch.tensor([[2, 2, 0], [0, 0, 0]])),
        torch.tensor([[[1.0], [0.5], [9.0]], [[0.0]] * 3]),
    )
    shown, counts = topics.lineage(torch.tensor([[3], [0]])), torch.tensor([[[2.0]], [[0.0]]])
    evidence = topics.evidence(history[..., -1], memory, shown[..., -1], counts)
    assert evidence.tolist() == [
        5.0,
        0.0,
    ]  # 2 × 1.5 for leaf 2 and 1 × 2 for leaf 3; what has no category tells nothing
    seen, like = HistoryMatch(1, [1.0]), ExposureMatch([1.0])
    found = topics.shares(every, seen(every, history, memory), like(every, shown, counts), evidence)
    first, second = (3 + 4 * 0.8) / (5 + 4), (2 + 4 * 0.2) / (5 + 4)
    assert torch.allclose(found[0, :, 0], torch.tensor([first, first, second]))
    inside = [3 * 0.5 / 0.8 / (3 + 3), (3 + 3 * 0.3 / 0.8) / (3 + 3), 1.0]
    assert torch.allclose(found[0, :, 1], torch.tensor([first, first, second]) * torch.tensor(inside))
    assert torch.allclose(found[1], torch.tensor([[0.8, 0.5], [0.8, 0.3], [0.2, 0.2]]))  # of whom nothing is known
    described = topics.describe(every, found)
    assert torch.equal(described[..., :2], found)
    assert torch.allclose(described[1, :, 2:], torch.full((3, 2), 2.0).log())


def test_only_where_a_request_is_answered_the_topic_scales_what_is_predicted():
    topics, shares = NextTopic([2, 2], 2, 1, 1), torch.tensor([[[0.9, 0.4], [0.9, 0.0]]])
    categories = torch.zeros(1, 2, 2, dtype=torch.int64)
    topics.off_topic[1] = torch.tensor([0.25, 0.5])  # unrelated; what shares the first level alone
    expected = torch.tensor([[0.1 * 0.25 + 0.5 * 0.5 + 0.4, 0.1 * 0.25 + 0.9 * 0.5]])
    assert torch.allclose(topics(torch.tensor([[1]]), categories, shares), expected)
    assert torch.equal(topics(torch.tensor([[2]]), categories, shares), torch.ones(1, 2))


def test_beside_an_anchor_the_expected_lift_is_held_against_anybodys():
    topics = NextTopic([3, 4], 1, 1, 1)
    topics.reset(np.array([[1, 1], [1, 2], [2, 3]]))
    topics.set_priors(torch.tensor([1, 1, 1, 2, 3, 3]))  # with half a request more each: 3.5, 1.5 and 2.5 of 7.5
    every = topics.lineage(torch.tensor([[1, 2, 3]]))
    usual = torch.stack(topics.prior(every), dim=-1)
    shares = torch.tensor([[[0.8, 0.5], [0.8, 0.3], [0.2, 0.2]]])
    # What is wanted beside is of the same first level, but not the same
    topics.beside[1] = torch.tensor([0.5, 2.0, 1.0])

    def lift(first, leaf):
        return 0.5 * (1 - first) + 2.0 * (first - leaf) + 1.0 * leaf

    found = topics(torch.tensor([[1]]), every, shares)
    anybodys = [lift(5 / 7.5, 3.5 / 7.5), lift(5 / 7.5, 1.5 / 7.5), lift(2.5 / 7.5, 2.5 / 7.5)]
    mine = [lift(0.8, 0.5), lift(0.8, 0.3), lift(0.2, 0.2)]
    torch.testing.assert_close(found, torch.tensor([mine]) / torch.tensor([anybodys]))
    assert torch.allclose(topics(torch.tensor([[1]]), every, usual), torch.ones(1, 3))  # of whom nothing is known


@given(st.integers(0, 10**6))
def test_shares_of_the_children_add_up_to_that_of_their_category(seed):
    rng = np.random.default_rng(seed)
    tree = np.array([[1 + leaf // 6, 1 + leaf // 3, leaf + 1] for leaf in range(12)])
    priors, counts = (rng.dirichlet(np.ones(12)) * scale for scale in (1.0, rng.integers(0, 50)))
    doubts = torch.from_numpy(rng.exponential(5, 3) + 1e-6)

    def by_level(values):
        return [torch.from_numpy(np.bincount(ids, values)[ids]) for ids in tree.T]

    of_leaves = by_level(counts)
    shares = nested_shares(of_leaves, by_level(priors), torch.full((12,), counts.sum(), dtype=torch.float64), doubts)
    assert shares[-1].sum().item() == pytest.approx(1)
    for level in (0, 1):
        sums = np.bincount(tree[:, level], shares[-1].numpy())[tree[:, level]]
        assert shares[level].numpy() == pytest.approx(sums)


def test_a_new_category_has_no_share_and_is_seen_where_it_was_met():
    topics = NextTopic([2, 2], 1, 1, 1)
    topics.reset(np.array([[1, 1]]))
    topics.set_priors(torch.tensor([1, 1]))
    assert topics.lineage(torch.tensor([1, 7])).tolist() == [[1, 1], [0, 7]]
    assert [prior.tolist() for prior in topics.prior(torch.tensor([[1, 1], [1, 7]]))] == [[1.0, 1.0], [1.0, 0.0]]
    assert torch.isfinite(topics.describe(torch.tensor([[[1, 7]]]), torch.tensor([[[0.5, 0.1]]]))).all()


def test_the_less_of_the_tree_is_shared_the_rarer_is_a_click():
    tree = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4]])
    leaves, topic = np.repeat([1, 2, 3, 4], 10_000), np.ones(40_000, np.int64)
    shared = _shared_levels(tree, leaves, topic)
    assert shared[::10_000].tolist() == [3, 2, 1, 0]
    clicked = np.random.default_rng(0).random(40_000) < np.repeat([0.4, 0.3, 0.2, 0.1], 10_000)
    assert _relative_rates(shared, clicked) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
    few = np.r_[np.flatnonzero(shared == 3), np.flatnonzero(shared == 1), np.flatnonzero(shared == 0)[:3]]
    found = _relative_rates(shared[few], clicked[few])
    assert found[0] == pytest.approx(found[1], abs=0.03)  # three rows say next to nothing
    assert _relative_rates(shared[:10_000], clicked[:10_000]).tolist() == [1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def asked(demo_shop, night, trained):
    """Examples in which each request of the search shows one category, that of the user's own history, or 8."""
    model, examples = load_model(trained.folder), load_examples(demo_shop, night.inputs)
    fields, catalogue = list(model.spec.item_fields), examples.catalogue.copy()
    category = catalogue[:, fields.index("category_3_index")]
    for level in ("category_1_index", "category_2_index"):  # a tree: two categories above all
        catalogue[:, fields.index(level)] = np.where(category > 0, 1 + category % 2, 0)
    rng, item = np.random.default_rng(0), examples.item.copy()
    stored, labels = examples.histories, examples.labels.copy()
    for request in np.unique(examples.request):
        rows = np.flatnonzero(examples.request == request)
        own = category[stored.items[examples.history[rows[0]], -1]] or 8
        wanted = own if rng.random() < 0.8 else 8
        item[rows] = np.flatnonzero(category == wanted)[0]
        item[rows[-1]] = np.flatnonzero(category != wanted)[1]  # one off the topic, clicked half as often
        labels[rows, 0] = rng.random(len(rows)) < np.where(np.arange(len(rows)) < len(rows) - 1, 0.6, 0.3)
    return model, dataclasses.replace(examples, item=item, labels=labels, catalogue=catalogue), category


def test_the_fit_learns_that_requests_follow_histories(asked):
    model, examples, category = asked
    rows = np.flatnonzero(examples.scenario == 2)
    found = fit_topics(model, examples, rows, ["search"])
    assert np.mean(found["search"]) == pytest.approx(0.5, abs=0.12)
    assert found["search"] == pytest.approx([0.5, 0.5, 0.5], abs=0.15)  # each of a third of the rows
    model.eval()
    stored, topics = examples.histories, model.topics
    at = examples.history[rows[stored.items[examples.history[rows], -1] > 0]]
    seen = topics.lineage(torch.from_numpy(category[np.minimum(stored.items[at], len(category) - 1)]))
    shown = topics.lineage(torch.from_numpy(stored.shown[at]))
    memory = model.matching.memory(torch.from_numpy(stored.events[at]).long(), torch.from_numpy(stored.ages[at]))
    counts = model.exposure.memory(torch.from_numpy(stored.shown_counts[at]), torch.from_numpy(stored.shown_ages[at]))
    every = topics.lineage(torch.unique(torch.from_numpy(category[category > 0])).expand(len(at), -1))
    parts = model.matching(every, seen, memory), model.exposure(every, shown, counts)
    shares = topics.shares(every, *parts, topics.evidence(seen[..., -1], memory, shown[..., -1], counts))[..., -1]
    assert torch.allclose(shares.sum(1), torch.ones(len(at)), atol=1e-4)
    is_own = every[..., -1] == seen[:, -1:, -1]
    assert shares[is_own].mean() > 2 * topics.prior(seen[:, -1])[-1].mean()


def test_without_requests_outcomes_are_the_topics_and_scale_nothing(asked):
    model, examples, _ = asked
    assert fit_topics(model, examples, np.arange(len(examples)), []) == {}
    assert bool((model.topics.off_topic == 1).all())
    assert float(model.topics.priors[-1].sum()) == pytest.approx(1)
    assert float(model.topics.event_worth.max()) > 1.5  # what happened before tells what comes


def test_without_requests_or_clicks_topics_change_nothing(asked):
    model, examples, _ = asked
    assert fit_topics(model, examples, np.arange(0), ["search"]) == {"search": [1.0, 1.0, 1.0]}
    assert float(model.topics.priors.abs().max()) == 0
    nothing = dataclasses.replace(examples, labels=np.zeros_like(examples.labels))
    assert fit_topics(model, nothing, np.arange(len(examples)), ["search"]) == {"search": [1.0, 1.0, 1.0]}
    assert bool((model.topics.off_topic == 1).all())
