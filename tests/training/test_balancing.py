import pytest
import torch
from torch import nn

from nightshelf.errors import InputError
from training.backbone_sizes import PlainSizes
from training.backbones import make_backbone
from training.balancing import FAMO, DynamicAverage, GradNorm, Surgery, make_balance
from training.batches import Dataset
from training.recipe import Recipe
from training.spec import TaskSpec
from training.steps import Steps

TASKS = [
    TaskSpec(name="click", kind="binary"),
    TaskSpec(name="cart", kind="binary", given="click"),
    TaskSpec(name="spend", kind="regression", given="cart"),
]
LOSSES = torch.tensor([1.0, 2.0, 3.0])


def balance_of(sizes=None, **recipe):
    backbone = make_backbone(sizes or PlainSizes(kind="shared_bottom", sizes=[4, 3]), len(TASKS), 3, 0)
    return make_balance(Recipe(name="r", **recipe), TASKS, backbone)


def test_weights_of_the_recipe_and_of_learned_variances():
    assert balance_of()(LOSSES).item() == 6
    assert balance_of(balancing="fixed", task_weights={"cart": 0.5})(LOSSES).item() == 5
    uncertain = balance_of(balancing="uncertainty")
    uncertain(LOSSES).backward()
    assert uncertain.log_variance.grad.tolist() == [-0.5, -1.5, -2.5]
    with pytest.raises(InputError, match="'buy' is no task"):
        balance_of(balancing="fixed", task_weights={"buy": 1})
    with pytest.raises(
        InputError, match=r"task_weights: all tasks of this shop \(.*\) have weight 0; give one of them more"
    ):
        balance_of(balancing="fixed", task_weights={task.name: 0 for task in TASKS})


def test_dwa_is_the_papers_formula():
    balance = DynamicAverage(3)
    balance.after_epoch(torch.tensor([1.0, 2.0, 4.0]))
    assert balance.weights.tolist() == [1, 1, 1]
    balance.after_epoch(torch.tensor([0.5, 2.0, 6.0]))
    expected = 3 * torch.softmax(torch.tensor([0.5, 1.0, 1.5]) / 2, 0)
    torch.testing.assert_close(balance.weights, expected)
    assert balance(LOSSES).item() == pytest.approx(float((expected * LOSSES).sum()))


def test_gradnorm_makes_pulls_alike_and_keeps_the_sum_of_weights():
    balance = GradNorm(3, (nn.Parameter(torch.zeros(1)), 1))
    norms = torch.tensor([1.0, 2.0, 4.0])
    for _ in range(400):
        balance.see_pulls(LOSSES, norms)
    pulls = balance.weights * norms
    assert balance.weights.sum() == pytest.approx(3)
    assert pulls.max() / pulls.min() < 1.2
    first = balance.weights.clone()
    for _ in range(400):  # the last task's loss has not fallen, the others' have
        balance.see_pulls(LOSSES * torch.tensor([0.5, 0.5, 1.0]), norms)
    assert balance.weights[2] / first[2] > 1.5 * balance.weights[0] / first[0]


def test_gradnorm_asks_for_a_layer_that_tasks_share():
    for sizes in (PlainSizes(kind="single_task", sizes=[4, 3]), PlainSizes(kind="shared_bottom", sizes=[4])):
        with pytest.raises(InputError, match=r"gradnorm needs a layer .* backbone ple"):
            balance_of(sizes, balancing="gradnorm")


def test_tasks_share_the_network_of_a_scenario():
    """The last layer of all scenarios, which a scenario's tasks share; one layer is the first one, which has no weight here."""
    balance = balance_of(PlainSizes(kind="single_scenario", sizes=[4, 3]), balancing="gradnorm")
    weight, rows = balance.last_shared
    assert weight.shape == (3, 1, 4, 3) and rows == 3
    with pytest.raises(InputError, match="gradnorm needs a layer"):
        balance_of(PlainSizes(kind="single_scenario", sizes=[4]), balancing="gradnorm")


def test_famo_weighs_more_what_fell_less():
    balance = FAMO(3)
    loss = balance(LOSSES.clone().requires_grad_())
    shares = 1 / LOSSES
    torch.testing.assert_close(balance.weights, shares / shares.sum())
    assert loss.item() == pytest.approx(float((balance.weights * LOSSES).sum()))
    for _ in range(20):
        balance.after_step(LOSSES, lambda: LOSSES * torch.tensor([0.5, 0.9, 0.9]))
    balance(LOSSES)
    share = balance.weights * LOSSES
    assert share[0] < share[1] == pytest.approx(float(share[2]))


@pytest.mark.parametrize("slices", [1, 2])
def test_pulls_are_the_norms_at_the_layer_that_tasks_share(build, example_night, recipe, slices):
    """Not at the first embedding table, and of the shared experts alone."""
    model, spec = build(recipe(balancing="gradnorm"))
    dataset, chunks, ones = Dataset(example_night, spec), torch.arange(60), torch.ones(4)
    steps, seen = Steps(model, ones), []
    steps._slices = slices
    steps.balance.see_pulls = lambda losses, norms: seen.append((losses, norms))
    steps.gradient(dataset, chunks, ones)
    ((losses, norms),) = seen
    experts = model.backbone.levels[0].deeper.layers[0].weight
    plain = Steps(build(recipe())[0], ones)
    for task in range(4):
        plain.balance.weights = torch.eye(4)[task]
        assert plain.gradient(dataset, chunks, ones) == pytest.approx(float(losses[task]), rel=1e-5)
        gradient = plain.model.backbone.levels[0].deeper.layers[0].weight.grad
        assert norms[task].item() == pytest.approx(float(gradient[:2].norm()), rel=1e-4)
    assert len(experts) > 2


def test_famo_looks_at_the_same_batch_after_the_step(build, example_night, recipe):
    model, spec = build(recipe(balancing="famo"))
    dataset, chunks, ones = Dataset(example_night, spec), torch.arange(60), torch.ones(4)
    steps, told = Steps(model, ones), []
    steps.balance.after_step = lambda before, again: told.append((before, again()))
    steps.gradient(dataset, chunks, ones)
    steps.move()
    ((before, after),) = told
    steps.gradient(dataset, chunks, ones)
    torch.testing.assert_close(steps._epoch[-1], after)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("kind", ["pcgrad", "mgda", "cagrad", "upgrad"])
def test_gradients_that_conflict_are_brought_together(kind):
    """A step along their sum raises the first loss; CAGrad stays near the sum, the others' step raises none."""
    gradients = torch.tensor([[1.0, 0.0], [-3.0, 1.0]])
    assert float(gradients.sum(0) @ gradients[0]) < 0
    balance = Surgery(2, kind)
    balance.see_gramian(gradients @ gradients.t())
    steps = [nn.functional.normalize(step, dim=0) for step in (balance.weights @ gradients, gradients.sum(0))]
    gains = [gradients @ step for step in steps]
    assert gains[0].min() > gains[1].min()
    assert kind == "cagrad" or gains[0].min() >= -1e-5
    balance.see_gramian(torch.eye(2))
    assert balance.weights[0] == pytest.approx(float(balance.weights[1]), rel=1e-3)


def test_pcgrad_is_the_papers_projection():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    balance = Surgery(2, "pcgrad")
    balance.see_gramian(torch.stack([first, second]) @ torch.stack([first, second]).t())
    projected = [a - min(float(a @ b), 0) / float(b @ b) * b for a, b in ((first, second), (second, first))]
    found = balance.weights @ torch.stack([first, second])
    torch.testing.assert_close(found, projected[0] + projected[1])


def shared_numbers(name, weight):
    """Return which numbers of a parameter tasks share in a CGC of two shared experts and one of each of four tasks, whose
    probabilities build on no other: by how the model is made."""
    is_shared = torch.ones(weight.shape, dtype=torch.bool)
    if name.startswith(("towers.", "wide_", "task_bias", "position_bias")):
        is_shared[:] = False
    elif name.startswith("backbone."):
        assert weight.shape[0] == 6
        is_shared[2:] = False
    elif name.split(".")[0] in ("user_layer", "item_layer", "dense_layer", "pair_layer", "scenario_layer"):
        assert weight.shape[0] == 6 * 16 + 4 * 3  # the experts' first layers, and the gates of tasks
        is_shared[2 * 16 :] = False
    elif name.startswith("scenario_scale"):
        assert weight.shape[0] == 6 * 16
        is_shared[2 * 16 :] = False
    return is_shared


@pytest.mark.parametrize(("slices", "turns"), [(1, 1), (2, 1), (2, 2)])
def test_what_one_task_alone_moves_is_neither_in_the_gramian_nor_weighed(build, example_night, recipe, slices, turns):
    """Beside the gradient of each task alone, and the structure of the model."""
    model, spec = build(recipe(balancing="upgrad", task_relation="independent"))
    dataset, chunks, ones = Dataset(example_night, spec), torch.arange(60), torch.ones(4)
    steps, seen, weights = Steps(model, ones), [], torch.tensor([0.1, 0.5, 1.5, 3.0])
    steps._slices, steps._turns = slices, turns

    def see(gramian):
        seen.append(gramian)
        steps.balance.weights = weights

    steps.balance.see_gramian = see
    loss = steps.gradient(dataset, chunks, ones)
    plain, of_tasks = Steps(build(recipe(task_relation="independent"))[0], ones), []
    for task in range(4):
        plain.balance.weights = torch.eye(4)[task]
        loss -= weights[task] * plain.gradient(dataset, chunks, ones)
        named = plain.model.named_parameters()
        of_tasks.append({n: torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for n, p in named})
    assert loss == pytest.approx(0, abs=1e-5)
    gramian = torch.zeros(4, 4)
    for name, parameter in model.named_parameters():
        each, is_shared = torch.stack([found[name] for found in of_tasks]), shared_numbers(name, parameter)
        common = (each * is_shared).reshape(4, -1)
        gramian += common @ common.t()
        expected = torch.where(is_shared, torch.tensordot(weights, each, 1), each.sum(0))
        torch.testing.assert_close(parameter.grad.to_dense(), expected, rtol=1e-4, atol=1e-6)
        assert is_shared.any() or each.abs().sum() > 0
    torch.testing.assert_close(seen[0], gramian, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["pcgrad", "mgda", "cagrad", "upgrad"])
def test_a_loss_that_is_not_finite_reaches_the_training_not_the_solver(kind):
    balance = Surgery(2, kind)
    balance.see_gramian(torch.full((2, 2), torch.nan))
    assert balance(torch.tensor([1.0, torch.nan])).isnan()
