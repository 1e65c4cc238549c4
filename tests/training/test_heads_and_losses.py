import math

import pytest
import torch
from torch.nn import functional

from nightshelf.errors import InputError
from nightshelf.tasks import Task
from training.batches import Dataset
from training.heads import OutcomeChain, PositionBias
from training.losses import binary_loss, focal_loss, huber_loss, smooth, squared_error, task_losses, tweedie_loss
from training.objective import training_losses
from training.outputs import outputs_of
from training.spec import TaskSpec, order_tasks

CLICK, CART = TaskSpec(name="click", kind="binary"), TaskSpec(name="cart", kind="binary", given="click")
SPEND = TaskSpec(name="spend", kind="regression", given="click")
TASKS = [CLICK, CART, SPEND]


def test_chain_multiplies_what_is_given():
    chain = OutcomeChain(TASKS)
    chain.log_scale[2] = math.log(10.0)
    z = torch.tensor([[0.3, -1.0, 0.5]])
    p_click, p_cart = torch.sigmoid(z[0, 0]), torch.sigmoid(z[0, 0]) * torch.sigmoid(z[0, 1])
    assert torch.allclose(chain(z).exp()[0], torch.stack([p_click, p_cart, p_click * math.exp(0.5) * 10]))


def test_a_regressions_gradient_stops_at_what_it_is_given():
    z = torch.zeros(1, 3, requires_grad=True)
    OutcomeChain(TASKS)(z)[0, 2].backward()
    assert z.grad.tolist() == [[0.0, 0.0, 1.0]]


def test_binary_loss_is_cross_entropy():
    z, label = torch.linspace(-8, 8, 33), (torch.arange(33) % 2).float()
    expected = functional.binary_cross_entropy_with_logits(z, label, reduction="none")
    assert torch.allclose(binary_loss(functional.logsigmoid(z), label), expected, rtol=1e-3, atol=1e-5)


def test_tweedie_stays_a_number_where_the_mean_is_next_to_nothing():
    log_mean = torch.tensor([-400.0, -170.0, -40.0], requires_grad=True)
    losses = tweedie_loss(log_mean, torch.tensor([0.0, 0.0, 1.0]))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0, 0, 2 * math.exp(20)], rel=1e-5, abs=1e-6)
    assert log_mean.grad.tolist() == pytest.approx([0, 0, -math.exp(20)], rel=1e-5)


def test_tweedie_is_lowest_at_the_mean():
    label = torch.tensor([0.0, 0.0, 0.0, 8.0])
    log_mean = torch.linspace(-3, 3, 601)
    losses = torch.stack([tweedie_loss(m, label).sum() for m in log_mean])
    assert log_mean[losses.argmin()].exp() == pytest.approx(2.0, rel=0.02)


def test_focal_loss_is_the_papers_formula():
    z, label = torch.linspace(-6, 6, 25), (torch.arange(25) % 2).float()
    p = torch.sigmoid(z)
    right = torch.where(label == 1, p, 1 - p)
    expected = -((1 - right) ** 2) * right.log()
    torch.testing.assert_close(focal_loss(functional.logsigmoid(z), label), expected, rtol=1e-3, atol=1e-5)


def test_errors_of_values_by_hand():
    log_mean, label = torch.tensor([1.0, 2.0, 2.0]).log(), torch.tensor([1.5, 0.0, 5.0])
    torch.testing.assert_close(squared_error(log_mean, label), torch.tensor([0.125, 2.0, 4.5]))
    torch.testing.assert_close(huber_loss(log_mean, label), torch.tensor([0.125, 1.5, 2.5]))


def test_each_task_has_the_loss_that_was_chosen_for_it_and_is_measured_by_its_own():
    z, labels, weights = torch.randn(6, 3), torch.rand(6, 3).round(), torch.ones(6, 3)
    scales, logs = torch.tensor([1.0, 1.0, 4.0]), OutcomeChain(TASKS)(z)
    chosen = [
        CLICK.model_copy(update={"chosen_loss": "focal"}),
        CART,
        SPEND.model_copy(update={"chosen_loss": "huber"}),
    ]
    plain, other = (task_losses(logs, labels, weights, tasks, scales) for tasks in (TASKS, chosen))
    assert (plain == other).tolist() == [False, True, False]
    assert other[0] == focal_loss(logs[:, 0], labels[:, 0]).sum()
    assert other[2] == huber_loss(logs[:, 2] - math.log(4), labels[:, 2] / 4).sum()
    measured = [task.measured() for task in chosen]
    assert torch.equal(task_losses(logs, labels, weights, measured, scales), plain)


def test_smoothed_labels_go_towards_one_half_and_values_stay():
    labels = torch.tensor([[1.0, 0.0, 7.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(smooth(labels, 0.1, TASKS), torch.tensor([[0.95, 0.05, 7.0], [0.05, 0.95, 0.0]]))
    assert smooth(labels, 0.0, TASKS) is labels


def test_training_smooths_the_labels(build, recipe, example_night):
    """A probability that is right for each smoothed label has no gradient."""
    model, spec = build(recipe(label_smoothing=0.1))
    batch = Dataset(example_night, spec).batch(torch.arange(20))
    logits = torch.logit(0.05 + 0.9 * batch.labels[..., :1]).expand(-1, -1, 4).clone().requires_grad_()
    training_losses(model, logits, batch, torch.ones(4))[0].backward()
    assert logits.grad[..., 0].abs().max() < 1e-5


def test_masked_rows_have_no_part_in_the_loss():
    z, labels, weights = torch.randn(6, 3), torch.ones(6, 3), torch.ones(6, 3)
    weights[3:, 1] = 0
    scales = torch.tensor([1.0, 1.0, 4.0])
    logs = OutcomeChain(TASKS)(z)
    before = task_losses(logs, labels, weights, TASKS, scales)
    labels[3:, 1] = 0
    assert torch.equal(before, task_losses(logs, labels, weights, TASKS, scales))
    labels[:3, 1] = 0
    assert not torch.equal(before, task_losses(logs, labels, weights, TASKS, scales))


def test_position_bias_is_zero_at_the_first_place_and_only_for_root_tasks():
    bias = PositionBias(2, outputs_of(TASKS, "esmm"))
    torch.nn.init.ones_(bias.table)
    found = bias(torch.tensor([1, 1, 1, 2]), torch.tensor([0, 1, 2, 400]))
    assert found.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_tasks_stand_behind_what_they_are_given(demo_shop):
    task = demo_shop.tasks["cart"]
    shop = demo_shop.model_copy(update={"tasks": {"cart": task, "click": demo_shop.tasks["click"]}})
    assert [t.name for t in order_tasks(shop)] == ["click", "cart"]
    circle = {"a": task.model_copy(update={"given": "b"}), "b": task.model_copy(update={"given": "a"})}
    with pytest.raises(InputError, match="each is given another"):
        order_tasks(demo_shop.model_copy(update={"tasks": circle}))
    on_regression = {
        "spend": Task(event="purchase", value="price", kind="regression", label_window="1d"),
        "b": task.model_copy(update={"given": "spend"}),
    }
    with pytest.raises(InputError, match="is a regression"):
        order_tasks(demo_shop.model_copy(update={"tasks": on_regression}))
