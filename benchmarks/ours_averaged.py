"""nightshelf's MMoE on the plain table, with steps as the ranker's: clipped gradients, and the weights' average."""

from benchmarks.ours import Ours
from benchmarks.trial import run_trial
from training.recipe import Recipe


class OursAveraged(Ours):
    """The recipe's default average."""

    average = Recipe.model_fields["weight_average"].default


if __name__ == "__main__":
    run_trial(OursAveraged)
