import re
from pathlib import Path

import pytest

from nightshelf.errors import InputError
from training.recipe import load_recipe

MODELS = Path(__file__).parents[2] / "conf" / "models"


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_recipes_that_come_along_can_be_read(file):
    assert load_recipe(file).name == file.stem


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("kind: ple ", "kind: plee "), r"r.yaml:\d+: backbone = .*'plee' found using 'kind' does not match .*'mmoe'"),
        (
            ("shared_experts", "shared_expert"),
            r"r.yaml:\d+: unknown key .*shared_expert'; did you mean 'shared_experts'",
        ),
        (
            ("kind: ple ", "kind: star "),
            r"r.yaml:\d+: unknown key 'backbone.star.levels'; known here: auxiliary_sizes, input, kind, sizes$",
        ),
        (
            ("balancing: equal", "balancing: gradnormal"),
            r"r.yaml:\d+: balancing = 'gradnormal': Input should be 'equal'",
        ),
        (
            ("task_relation: esmm", "task_relation: escm2"),
            r"r.yaml:\d+: task_relation = 'escm2': Input should be 'esmm', 'independent', 'aitm', 'escm2_ipw'",
        ),
        (
            ("losses: {}", "losses: {click: focus}"),
            r"r.yaml:\d+: losses.click = 'focus': Input should be 'cross_entropy'",
        ),
        (
            ("kind: target_attention", "kind: hstu\n  heads: 5"),
            r"r.yaml: attention_size 32 is no multiple of sequence_encoder.heads 5$",
        ),
        (
            (
                "embedding_optimizer: rowwise_adagrad  # who moves the embedding table: rowwise_adagrad | lazy_adam\n"
                "embedding_table: whole ",
                "embedding_optimizer: lazy_adam\nembedding_table: sharded ",
            ),
            r"r.yaml: embedding_optimizer lazy_adam does not move a sharded table; take rowwise_adagrad, or embedding_table: who",
        ),
        (
            ("task_weights: {}", "task_weights: {cart: 2}"),
            r"r.yaml: task_weights: balancing equal reads none; take balancing: fixed, or task_weights: {}$",
        ),
        (
            ("task_weights: {}", "task_weights: {cart: .inf}"),
            r"r.yaml:\d+: task_weights.cart = 'inf': .* equal to 1000000",
        ),
        (
            ("match_decay_days: [2,", "match_decay_days: [1.0e-300,"),
            r"r.yaml:\d+: match_decay_days.0 = '1e-300': .* equal to 0.001",
        ),
        (
            ("kind: ple ", "input: 8 "),
            r"r.yaml:\d+: key 'backbone.kind' is missing; add it \(see conf/models/ple.yaml\)$",
        ),
        (("name: ple\n", ""), r"r.yaml:2: key 'name' is missing; add it \(see conf/models/ple.yaml\)$"),
        (("name: ple", "nam: ple"), r"r.yaml:2: unknown key 'nam'; did you mean 'name'\?$"),
        (("seed: 1 ", "seed: -1 "), r"r.yaml:\d+: seed = '-1': Input should be greater than or equal to 0"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_remedy(tmp_path, change, told):
    text = (MODELS / "ple.yaml").read_text()
    assert change[0] in text
    (tmp_path / "r.yaml").write_text(text.replace(*change, 1))
    with pytest.raises(InputError, match=told) as error:
        load_recipe(tmp_path / "r.yaml")
    line = re.search(r"r\.yaml:(\d+):", str(error.value))
    if line:
        key = change[1].split(":")[0].strip()
        told_line = (tmp_path / "r.yaml").read_text().splitlines()[int(line[1]) - 1]
        assert key in told_line or told_line.lstrip().startswith(("backbone", "levels"))
