import math

import torch

from training.encoders import FieldEmbedding
from training.matching import ExposureMatch, HistoryMatch, PriceFit


def test_an_id_beyond_the_table_is_unknown():
    fields = FieldEmbedding({"a": 3, "b": 4}, 2)
    found = fields(torch.tensor([[9, 2], [0, 2], [1, 0]]), 0)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], torch.cat([fields.table.weight[1], fields.table.weight[3]]))


def test_ids_above_what_a_float_can_tell_apart_have_rows_of_their_own():
    fields = FieldEmbedding({"user": 5, "item": 2**24 + 3}, 1)
    ids = torch.tensor([2**24 - 1, 2**24, 2**24 + 1, 2**24 + 2], dtype=torch.int32)
    vectors = fields(ids.long().unsqueeze(1), 1)
    assert torch.equal(vectors, fields.table.weight[ids.long() + 5])
    assert len(vectors.unique()) == 4


def test_matching_by_hand():
    matching = HistoryMatch(events=2, decay_days=[2.0])
    history = torch.tensor([[[5, 1], [5, 0], [6, 1], [0, 0]]], dtype=torch.int32)
    events, ages = torch.tensor([[1, 2, 1, 0]]), torch.tensor([[0.0, 2.0, 4.0, 0.0]])
    target = torch.tensor([[[5, 1], [7, 0]]], dtype=torch.int32)
    found = matching(target, history, matching.memory(events, ages))
    first = [[1.0, math.exp(-1)], [1 + math.exp(-2), 0.0]]  # attributes x events
    assert torch.allclose(found, torch.tensor([[first, [[0.0] * 2] * 2]]))


def test_exposure_is_summed_over_days_and_fades():
    match = ExposureMatch(decay_days=[2.0])
    shown = torch.tensor([[[1, 4], [1, 4], [1, 9], [0, 0]]])  # a category and one below it
    counts, ages = torch.tensor([[3.0, 1, 5, 0]]), torch.tensor([[2.0, 0, 0, 0]])
    found = match(torch.tensor([[[1, 4], [2, 5], [0, 0]]]), shown, match.memory(counts, ages))
    own = 3 * math.exp(-1) + 1
    assert torch.allclose(found, torch.tensor([[[[own + 5], [own]], [[0.0], [0.0]], [[0.0], [0.0]]]]))


def test_a_price_suits_whose_level_is_near():
    fit = PriceFit(events=1)
    bands, events = torch.tensor([[9, 10, 0], [2, 1, 1], [0, 0, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]])
    level = fit.level(bands, events)
    assert level[0] > 0 > level[1]
    assert level[2] == 0
    apart = fit(torch.tensor([[10, 1]] * 3), level)[..., 0]
    assert apart[0, 0] < apart[0, 1]
    assert apart[1, 1] < apart[1, 0]
    assert apart[2, 0] == apart[2, 1]
    assert torch.equal(fit(torch.tensor([[0]] * 3), level), torch.zeros(3, 1, 2))
