import pytest
import torch
from torch import nn

from training.recipe import BlockSizes, PlainEncoder
from training.sequences import AGE_BUCKETS, ActivationUnit, age_bucket, attend, make_sequence_layer

WIDTH = 8
POOLING = [PlainEncoder(kind=kind) for kind in ("mean_pooling", "gru", "convolution")]
BLOCKS = [BlockSizes(kind=kind, blocks=2, heads=2) for kind in ("transformer", "hstu")]


def layer_of(sizes):
    torch.manual_seed(0)
    layer = make_sequence_layer(sizes, WIDTH)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.4)
    return layer.eval()


def history(length, seed=0):
    """Return one history: events [1, L, D], all of them events, and their ages, the newest last."""
    generator = torch.Generator().manual_seed(seed)
    ages = torch.rand(1, length, generator=generator).mul(20).sort(descending=True).values
    return torch.randn(1, length, WIDTH, generator=generator), torch.ones(1, length, dtype=torch.bool), ages


def insert(parts, place):
    """Put something that is no event into a history."""
    events, is_event, ages = parts
    odd = (torch.full((1, 1, WIDTH), 1e3), torch.zeros(1, 1, dtype=torch.bool), torch.full((1, 1), 7.0))
    return tuple(
        torch.cat([x[:, :place], new, x[:, place:]], 1) for x, new in zip((events, is_event, ages), odd, strict=True)
    )


@pytest.mark.parametrize("sizes", [*POOLING, *BLOCKS], ids=lambda sizes: sizes.kind)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_what_is_no_event_has_no_part_in_anything(sizes, length):
    layer, parts = layer_of(sizes), history(length)
    alone = layer(*parts)
    for place in (0, length // 2, length):
        other = insert(parts, place)
        found = layer(*other)
        kept = found if layer.pools else found[other[1]][None]
        torch.testing.assert_close(kept, alone, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(layer(*insert(insert(parts, 0), 0))).all()


@pytest.mark.parametrize("sizes", POOLING, ids=lambda sizes: sizes.kind)
def test_of_an_empty_history_nothing_is_heard(sizes):
    events, _, ages = history(3)
    assert torch.equal(layer_of(sizes)(events, torch.zeros(1, 3, dtype=torch.bool), ages), torch.zeros(1, 1, WIDTH))


@pytest.mark.parametrize("sizes", BLOCKS, ids=lambda sizes: sizes.kind)
def test_no_event_sees_a_later_one(sizes):
    layer, (events, is_event, ages) = layer_of(sizes), history(5)
    changed = events.clone()
    changed[:, 3:] += 1
    one, other = layer(events, is_event, ages), layer(changed, is_event, ages)
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])


def test_order_matters_but_to_the_mean():
    events, is_event, ages = history(4)
    for sizes in POOLING:
        layer = layer_of(sizes)
        same = torch.allclose(layer(events, is_event, ages), layer(events.flip(1), is_event, ages), atol=1e-5)
        assert same == (sizes.kind == "mean_pooling")


def test_the_transformer_is_torchs_own():
    """One block against nn.TransformerEncoderLayer with the same weights, a causal mask and padding."""
    block = layer_of(BlockSizes(kind="transformer", blocks=1, heads=2)).blocks[0]
    oracle = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, 0.0, batch_first=True, norm_first=True).eval()
    oracle.self_attn.in_proj_weight.data, oracle.self_attn.in_proj_bias.data = block.project.weight, block.project.bias
    oracle.self_attn.out_proj.load_state_dict(block.merge.state_dict())
    for theirs, ours in zip(
        (oracle.norm1, oracle.norm2, oracle.linear1, oracle.linear2),
        (block.before_attention, block.before_feed, block.feed[0], block.feed[2]),
        strict=True,
    ):
        theirs.load_state_dict(ours.state_dict())
    events, is_event, ages = history(6)
    causal = torch.ones(6, 6, dtype=torch.bool).triu(1)
    with torch.no_grad():
        found = block(events, ~causal & is_event.unsqueeze(1), ages)
        torch.testing.assert_close(found, oracle(events, src_mask=causal), atol=1e-5, rtol=1e-5)


def test_hstu_against_loops():
    block = layer_of(BlockSizes(kind="hstu", blocks=1, heads=2)).blocks[0]
    events, is_event, ages = history(4)
    sees = torch.ones(4, 4, dtype=torch.bool).tril() & is_event.unsqueeze(1)
    found = block(events, sees, ages)[0]
    half = WIDTH // 2
    gates, queries, keys, values = nn.functional.silu(block.project(block.before(events[0]))).split(WIDTH, -1)
    for i in range(4):
        mixed = torch.zeros(WIDTH)
        for j in range(i + 1):
            for head in range(2):
                own = slice(head * half, head * half + half)
                gap = age_bucket((ages[0, j] - ages[0, i]).abs())
                score = queries[i, own] @ keys[j, own] + block.apart[gap, head]
                mixed[own] += nn.functional.silu(score) * values[j, own] / (i + 1)
        expected = events[0, i] + block.merge(block.after(mixed) * gates[i])
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-4)


def test_convolution_against_loops():
    layer, (events, is_event, ages) = layer_of(PlainEncoder(kind="convolution")), history(3)
    padded = torch.cat([torch.zeros(3, WIDTH), events[0]])
    found = []
    for filters in layer.filters:
        window = filters.kernel_size[0]
        answers = []
        for end in range(4, 7):
            rows = padded[end - window : end]
            products = torch.einsum("oiw,wi->o", filters.weight, rows) + filters.bias
            answers.append(products.relu())
        found.append(torch.stack(answers).amax(0))
    torch.testing.assert_close(layer(events, is_event, ages)[0, 0], layer.merge(torch.cat(found)), atol=1e-4, rtol=1e-4)


def test_ages_are_bucketed_by_powers_of_two_of_a_minute():
    minutes = torch.tensor([-1.0, 0.0, 0.9, 1.1, 2.9, 3.1, 60, 1e9])
    assert age_bucket(minutes / 1440).tolist() == [0, 0, 0, 1, 1, 2, 5, AGE_BUCKETS - 1]
    assert age_bucket(torch.tensor([181.0, 184.0])).tolist() == [AGE_BUCKETS - 2, AGE_BUCKETS - 1]


def test_the_activation_unit_against_loops_over_what_the_paper_feeds_it():
    """The paper's network on [event, target, event - target, event x target], whose difference layer is folded into ours."""
    torch.manual_seed(3)
    unit, difference = ActivationUnit(4, 3), torch.randn(3, 4)
    nn.init.normal_(unit.slope)
    queries, keys, values = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    is_event = torch.tensor([[False, True, True, True, True], [False] * 5])
    paper = torch.cat(
        [unit.key.weight - difference, unit.query.weight + difference, difference, unit.product.weight], 1
    )
    with torch.no_grad():
        found = unit(queries, keys, values, is_event)
        for user in range(2):
            for target in range(3):
                expected = torch.zeros(4)
                for event in is_event[user].nonzero().flatten().tolist():
                    k, q = keys[user, event], queries[user, target]
                    units = paper @ torch.cat([k, q, k - q, k * q]) + unit.query.bias
                    activated = nn.functional.prelu(units.unsqueeze(0), unit.slope.flatten())[0]
                    expected += unit.score(activated) * values[user, event]
                torch.testing.assert_close(found[user, target], expected, atol=1e-5, rtol=1e-5)
    assert not found[1].any()


def test_an_empty_history_answers_nothing_and_padding_has_no_weight():
    queries, keys, values = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    is_event = torch.tensor([[False] * 5, [True, True, False, False, False]])
    answers = attend(queries, keys, values, is_event)
    assert torch.equal(answers[0], torch.zeros(3, 4))
    values[1, 2:] = 1e6
    assert torch.equal(attend(queries, keys, values, is_event)[1], answers[1])
    short = attend(queries[1:], keys[1:, :2], values[1:, :2], is_event[1:, :2])
    assert torch.allclose(short[0], answers[1], atol=1e-6)
