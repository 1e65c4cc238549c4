import dataclasses

import numpy as np
import pytest
import torch

from nightshelf.features import request_scenarios
from training.artifact import load_model
from training.data import load_examples
from training.matching import NextTopic
from training.topics import fit_topics, request_topics


def test_scenarios_with_a_query_or_a_page_answer_requests(demo_shop):
    assert request_scenarios(demo_shop) == ["search", "product_page"]


def test_the_topic_of_a_request_is_what_it_shows_most():
    request, category = np.array([9, 4, 4, 9, 4, 9, 9]), np.array([2, 5, 3, 2, 5, 7, 7])
    number, first, topic = request_topics(request, category)
    assert number.tolist() == [1, 0, 0, 1, 0, 1, 1]
    assert first.tolist() == [1, 0]
    assert topic.tolist() == [5, 2]  # of two that tie the lower id


def test_shares_of_all_topics_add_up_to_one_and_follow_the_history():
    topics = NextTopic(categories=4, scenarios=2, event_memories=1, memories=1)
    topics.prior.copy_(torch.tensor([0.0, 0.5, 0.3, 0.2]))
    topics.off_topic[1] = 0.0
    topics.set_worth(torch.tensor([2.0, 1.0, 4.0]).log())
    history = torch.tensor([[2, 2, 0], [0, 0, 0]]), torch.tensor([[[1.0], [0.5], [9.0]], [[0.0]] * 3])
    shown = torch.tensor([[3], [0]]), torch.tensor([[[2.0]], [[0.0]]])
    target = torch.tensor([[1, 2, 3], [1, 2, 3]])
    found = topics(torch.tensor([[1]]), target, history, shown)
    # 4 × share + 2 × 1.5 for category 2 + 1 × 2 for category 3, over 4 + 3 + 2
    assert torch.allclose(found[0], torch.tensor([2.0, 4.2, 2.8]) / 9)
    assert torch.allclose(found[1], topics.prior[1:])  # of whom nothing is known
    assert torch.equal(topics(torch.tensor([[2]]), target, history, shown), torch.ones(2, 3))  # answers no request
    topics.off_topic[1] = 0.25
    assert torch.allclose(topics(torch.tensor([[1]]), target, history, shown), 0.25 + 0.75 * found)


@pytest.fixture(scope="module")
def asked(demo_shop, night, trained):
    """Examples in which each request of the search shows one category, that of the user's own history, or 8."""
    model, examples = load_model(trained.folder), load_examples(demo_shop, night.inputs)
    category = examples.catalogue[:, list(model.spec.item_fields).index("category_3_index")]
    rng, item = np.random.default_rng(0), examples.item.copy()
    stored, labels = examples.histories, examples.labels.copy()
    for request in np.unique(examples.request):
        rows = np.flatnonzero(examples.request == request)
        own = category[stored.items[examples.history[rows[0]], -1]] or 8
        wanted = own if rng.random() < 0.8 else 8
        item[rows] = np.flatnonzero(category == wanted)[0]
        item[rows[-1]] = np.flatnonzero(category != wanted)[1]  # one off the topic, clicked half as often
        labels[rows, 0] = rng.random(len(rows)) < np.where(np.arange(len(rows)) < len(rows) - 1, 0.6, 0.3)
    return model, dataclasses.replace(examples, item=item, labels=labels), category


def test_the_fit_learns_that_requests_follow_histories(asked):
    model, examples, category = asked
    rows = np.flatnonzero(examples.scenario == 2)
    found = fit_topics(model, examples, rows, ["search"])
    assert found["search"] == pytest.approx(0.5, abs=0.12)
    model.eval()
    stored, topics = examples.histories, model.topics
    at = examples.history[rows[stored.items[examples.history[rows], -1] > 0]]
    kinds = torch.from_numpy(category[np.minimum(stored.items[at], len(category) - 1)]).long()
    memory = model.matching.memory(torch.from_numpy(stored.events[at]).long(), torch.from_numpy(stored.ages[at]))
    counts = model.exposure.memory(torch.from_numpy(stored.shown_counts[at]), torch.from_numpy(stored.shown_ages[at]))
    every = torch.arange(1, len(topics.prior)).expand(len(at), -1)
    share = topics(torch.tensor([[2]]), every, (kinds, memory), (torch.from_numpy(stored.shown[at]).long(), counts))
    chance = (share - found["search"]) / (1 - found["search"])
    assert torch.allclose(chance.sum(1), torch.ones(len(at)), atol=1e-4)
    own = chance.gather(1, kinds[:, -1:] - 1)
    assert own.mean() > 2 * topics.prior[kinds[:, -1]].mean()


def test_without_requests_or_clicks_topics_change_nothing(asked):
    model, examples, _ = asked
    assert fit_topics(model, examples, np.arange(0), ["search"]) == {"search": 1.0}
    nothing = dataclasses.replace(examples, labels=np.zeros_like(examples.labels))
    assert fit_topics(model, nothing, np.arange(len(examples)), ["search"]) == {"search": 1.0}
    assert bool((model.topics.off_topic == 1).all())
