"""How tasks build on each other: what each relation predicts, adds to the losses, and refuses."""

import math

import pytest
import torch
from torch.nn import functional

from nightshelf.errors import InputError
from nightshelf.tasks import Sampled
from training.base_rates import start_at_base_rates
from training.batches import Dataset
from training.heads import OutcomeChain
from training.losses import task_losses
from training.objective import training_losses
from training.outputs import conversions, outputs_of
from training.predict import predict
from training.relations import Conversion, calibrator, doubly_robust_risk, ipw_risk, twin_risk
from training.spec import ModelSpec, TaskSpec, model_spec
from training.tower_inputs import InformationTransfer, TowerInputs
from training.transfer import why_incompatible

CLICK, CART = TaskSpec(name="click", kind="binary"), TaskSpec(name="cart", kind="binary", given="click")
BUY, SPEND = (
    TaskSpec(name="buy", kind="binary", given="cart"),
    TaskSpec(name="spend", kind="regression", given="buy"),
)
TASKS = [CLICK, CART, BUY, SPEND]


def shake(model):
    """Give each parameter a value of its own; some begin as zeros."""
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)


Z = torch.tensor([[0.3, -1.0, 0.7, 0.5], [-2.0, 3.0, 0.1, -1.0]])


@pytest.mark.parametrize("relation", ["esmm", "escm2_ipw", "escm2_dr", "dcmt"])
def test_products_go_along_the_chain(relation):
    further = torch.randn(2, 4)  # has no part in what is predicted
    p = OutcomeChain(TASKS, relation)(torch.cat([Z, further], 1)).exp()
    torch.testing.assert_close(p[:, :3], torch.sigmoid(Z[:, :3]).cumprod(1))
    assert (p[:, 1:3] <= p[:, :2]).all()


def test_independent_tasks_are_probabilities_of_their_own_and_values_keep_the_chain():
    p = OutcomeChain(TASKS, "independent")(Z).exp()
    torch.testing.assert_close(p[:, :3], torch.sigmoid(Z[:, :3]))
    torch.testing.assert_close(p[:, 3], torch.sigmoid(Z[:, 2]) * Z[:, 3].exp())


def test_a_probability_without_a_factor_hears_the_position():
    heard = {
        relation: [o.hears_position for o in outputs_of(TASKS, relation)]
        for relation in ("esmm", "independent", "aitm")
    }
    direct = [True, True, True, False]
    assert heard == {"esmm": [True, False, False, False], "independent": direct, "aitm": direct}
    further = outputs_of(TASKS, "dcmt")[4:]
    assert [(o.task, o.role, o.hears_position) for o in further] == [
        (1, "counterfactual", False),
        (2, "counterfactual", False),
    ]


def test_further_towers_start_where_they_are_right_on_average(build, example_night, recipe):
    rates = example_night.labels[example_night.is_train].mean(0)
    found, rate = {}, float(rates[1] / rates[0])
    for relation in ("escm2_dr", "dcmt"):
        model, spec = build(recipe(task_relation=relation))
        start_at_base_rates(model, Dataset(example_night, spec))
        found[relation] = model.task_bias.weight[len(spec.tasks), 1]
    torch.testing.assert_close(found["dcmt"].sigmoid(), torch.tensor(1 - rate))
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    torch.testing.assert_close(functional.softplus(found["escm2_dr"]), torch.tensor(entropy))


@pytest.mark.parametrize("relation", ["esmm", "independent"])
def test_the_first_predictions_are_the_rates_of_the_log(build, example_night, recipe, relation):
    model, spec = build(recipe(task_relation=relation))
    dataset = Dataset(example_night, spec).subset(example_night.is_train)
    for name, p in model.named_parameters():
        if name.startswith(("towers.layers.1", "task_bias")):
            torch.nn.init.zeros_(p)
    start_at_base_rates(model, dataset)
    found = predict(model, dataset).at_first[example_night.is_train, :3].mean(0)
    torch.testing.assert_close(found, torch.from_numpy(example_night.labels[example_night.is_train, :3].mean(0)))


def test_a_parent_of_another_relation_does_not_fit(build, recipe):
    parent, child = (build(recipe(task_relation=relation))[1] for relation in ("esmm", "independent"))
    assert why_incompatible(parent, child) == "recipe.task_relation was 'esmm' and is 'independent'"


def test_a_model_from_before_there_were_relations_is_esmm(build, recipe):
    _, spec = build(recipe())
    stored = spec.model_dump()
    del stored["recipe"]["task_relation"]
    assert ModelSpec.model_validate(stored) == spec


def test_information_transfer_against_loops():
    torch.manual_seed(0)
    transfer, own, before = InformationTransfer(4), torch.randn(5, 4), torch.randn(5, 4)
    found = transfer(own, before)
    value, query, key = (layer.weight.detach() for layer in (transfer.value, transfer.query, transfer.key))
    for row in range(5):
        told = (transfer.tell.weight @ before[row] + transfer.tell.bias).detach().clamp(min=0)
        weights = [math.exp(float((query @ u) @ (key @ u)) / math.sqrt(4)) for u in (own[row], told)]
        expected = sum(w / sum(weights) * (value @ u) for w, u in zip(weights, (own[row], told), strict=True))
        torch.testing.assert_close(found[row], expected)


def test_aitm_tells_a_task_of_the_one_before_and_not_the_other_way(build, recipe):
    model, _ = build(recipe(task_relation="aitm"))  # click, cart and purchase given click, spend
    mixed = torch.randn(4, 3, model.backbone.out_width, requires_grad=True)
    inputs = model.tower_inputs(mixed)
    hears = [
        torch.autograd.grad(inputs[task].sum(), mixed, retain_graph=True)[0].abs().sum((1, 2)) > 0 for task in range(4)
    ]
    assert torch.stack(hears).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


def test_information_goes_along_the_whole_chain():
    inputs = TowerInputs(outputs_of(TASKS, "aitm"), conversions(TASKS), 4)
    mixed = torch.randn(4, 3, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(inputs(mixed)[2].sum(), mixed)
    assert (grad.abs().sum((1, 2)) > 0).tolist() == [True, True, True, False]


def test_the_calibrator_costs_what_is_more_likely_than_what_it_is_given():
    nothing = torch.zeros(2)
    case = Conversion(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.7, 0.2]).log(), {}, nothing, nothing)
    torch.testing.assert_close(calibrator(case), torch.tensor([0.6 * 0.2, 0.0]))


# click, click probability, conversion, conversion given the click, what the further tower says
ROWS = [
    (1, 0.5, 1, 0.3, -0.4),
    (1, 0.002, 0, 0.6, 0.8),
    (0, 0.5, 0, 0.3, 1.5),
    (0, 0.999, 0, 0.9, -2.0),
]


def cases(role):
    o, click, r, given, further = (torch.tensor(column, dtype=torch.float) for column in zip(*ROWS, strict=True))
    return Conversion(click.log(), (click * given).log(), {"own": given.logit(), role: further}, o, r)


def error(given, r):
    return -math.log(given if r else 1 - given)


def test_inverse_propensities_by_hand():
    expected = [0.1 * error(0.3, 1) / 0.5, 0.1 * error(0.6, 0) / 0.01, 0.0, 0.0]  # a propensity is at least .01
    torch.testing.assert_close(ipw_risk(cases("imputation")), torch.tensor(expected))


def test_the_doubly_robust_risk_by_hand():
    expected = []
    for o, click, r, given, further in ROWS:
        imputed, p = math.log(1 + math.exp(further)), min(max(click, 0.01), 0.99)
        missed = error(given, r) - imputed
        expected.append(0.1 * (imputed + o * missed / p + o * missed**2 / p))
    torch.testing.assert_close(doubly_robust_risk(cases("imputation")), torch.tensor(expected))


def test_the_twins_risk_by_hand():
    expected = []
    for o, click, r, given, further in ROWS:
        p, twin = min(max(click, 0.01), 0.99), 1 / (1 + math.exp(-further))
        inside = error(given, r) / p if o else error(twin, 1 - r) / (1 - p)
        expected.append(inside + 0.001 * abs(1 - given - twin))
    torch.testing.assert_close(twin_risk(cases("counterfactual")), torch.tensor(expected))


@pytest.mark.parametrize("risk", [ipw_risk, doubly_robust_risk])
def test_risks_over_clicks_are_the_error_over_all_impressions(risk):
    """With the true propensity, the mean over draws of the click is that of the error, whatever the imputation says."""
    click, given = torch.tensor([0.1, 0.4, 0.8]), torch.tensor([0.3, 0.6, 0.2])
    r = torch.tensor([1.0, 0.0, 1.0])
    further = (functional.binary_cross_entropy(given, r, reduction="none")).expm1().log()  # softplus: the error itself
    said = {"own": given.logit(), "imputation": further}
    drawn = [risk(Conversion(click.log(), (click * given).log(), said, torch.full((3,), o), r)) for o in (1.0, 0.0)]
    mean = click * drawn[0] + (1 - click) * drawn[1]
    torch.testing.assert_close(mean, 0.1 * functional.binary_cross_entropy(given, r, reduction="none"))


@pytest.mark.parametrize("risk", [ipw_risk, doubly_robust_risk, twin_risk])
def test_a_conversions_risk_does_not_move_the_click(risk):
    case = cases("counterfactual" if risk is twin_risk else "imputation")
    click = case.log_click.requires_grad_()
    for said in case.said.values():
        said.requires_grad_()
    risk(case).sum().backward()
    assert click.grad is None
    assert case.said["own"].grad.abs().sum() > 0


def test_what_was_imputed_does_not_take_the_error_up():
    case = cases("imputation")
    own = case.said["own"].requires_grad_()
    risks = [risk(case).sum() for risk in (ipw_risk, doubly_robust_risk)]
    ipw, robust = (torch.autograd.grad(risk, own)[0] for risk in risks)
    torch.testing.assert_close(robust, ipw)


def test_a_risk_counts_where_both_labels_are_known(build, recipe, example_night):
    """By hand: the losses of the tasks, and for each row that knows both labels the risk times its weight."""
    model, spec = build(recipe(task_relation="aitm"))
    shake(model)
    batch = Dataset(example_night, spec).batch(torch.arange(20))
    batch.weights[:10, :, 0], batch.weights[:, 1, 1] = 0, 3
    with torch.no_grad():
        logits, bias = model(batch)
        found = training_losses(model, logits + bias, batch, torch.ones(4))
        logs = model.log_outcomes(logits + bias)
        plain = task_losses(logs, batch.labels, batch.weights, spec.tasks, torch.ones(4))
    expected = torch.zeros(4)
    for task in (1, 2):
        for place in zip(*torch.nonzero(batch.weights[..., 0], as_tuple=True), strict=True):
            p, weight = logs[place].exp(), batch.weights[place]
            expected[task] += 0.6 * max(p[task] - p[0], 0) * weight[task]
    assert expected[1] > 0
    torch.testing.assert_close(found - plain, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("relation", ["aitm", "escm2_ipw", "escm2_dr", "dcmt"])
def test_a_relation_that_means_nothing_for_the_tasks_is_refused(demo_shop, recipe, relation):
    alone = {name: demo_shop.tasks[name] for name in ("click", "spend")}
    with pytest.raises(InputError, match=rf"task_relation = '{relation}' is about binary tasks .* or take esmm$"):
        model_spec(
            demo_shop.model_copy(update={"tasks": alone}), recipe(task_relation=relation), {}, None, "2026-02-14"
        )


@pytest.mark.parametrize("relation", ["escm2_ipw", "escm2_dr", "dcmt"])
def test_a_risk_over_all_impressions_needs_labels_of_all_impressions(demo_shop, recipe, relation):
    cart = demo_shop.tasks["cart"].model_copy(update={"on": "any_item"})
    anywhere = demo_shop.model_copy(update={"tasks": {**demo_shop.tasks, "cart": cart}})
    drawn = demo_shop.model_copy(update={"negatives": Sampled(sampled=4)})
    for shop, told in (anywhere, r"those of cart \(`on: any_item`\)"), (drawn, r"those of cart, purchase \(negatives"):
        with pytest.raises(
            InputError, match=rf"task_relation = '{relation}' .* {told}.*: take esmm, independent or aitm$"
        ):
            model_spec(shop, recipe(task_relation=relation), {}, None, "2026-02-14")
