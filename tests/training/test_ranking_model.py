import math

import numpy as np
import pytest
import torch

from training.batches import Dataset
from training.next_topic import LEVELS


def test_what_was_done_with_a_category_speaks_for_an_item_as_much_as_the_item_says(build, example_night, recipe):
    """Its part of the logits against a loop over the history, with all other parts of the pair silent."""
    model, spec = build(recipe())
    batch = Dataset(example_night, spec).batch(torch.arange(40))
    place = model.matching.width(len(spec.item_fields))  # behind the matches
    with torch.no_grad():
        torch.nn.init.normal_(model.again.weight)
        torch.nn.init.normal_(model.again.bias)
        model.pair_layer.weight.zero_()
        model.wide_pair.weight.zero_()
        without, _ = model(batch)
        model.wide_pair.weight[: len(model.outputs), place] = 1  # in all scenarios
        found = (model(batch)[0] - without).numpy()
        said = model.item_side(batch.item_fields).again.numpy()
    leaf = batch.item_fields[:, list(spec.item_fields).index(LEVELS[-1])].numpy()
    users, memories = batch.users, recipe().match_decay_days
    heard = 0
    for user, targets in enumerate(batch.items.tolist()):
        for target, item in enumerate(targets):
            sums = np.zeros((len(spec.events), len(memories)))
            rows = zip(users.items[user].tolist(), users.events[user].tolist(), users.ages[user].tolist(), strict=True)
            for other, event, age in rows:
                if event and leaf[other] == leaf[item] != 0:
                    sums[event - 1] += [math.exp(-age / days) for days in memories]
            expected = float(np.log1p(sums).flatten() @ said[item])
            assert found[user, target] == pytest.approx(np.full(found.shape[-1], expected), abs=1e-4)
            heard += bool(sums.any())
    assert heard > 20
