"""The recipe of a ranker: every knob of training, read from conf/models/*.yaml."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nightshelf.features import SEQUENCE_LENGTH
from nightshelf.yamlfile import Strict, load_model
from training.backbone_sizes import BackboneSizes, PLESizes, Width

Rate = Annotated[float, Field(gt=0, le=10)]
Loss = Literal["cross_entropy", "focal", "pairwise", "tweedie", "huber", "squared_error", "zero_inflated_lognormal"]
TaskRelation = Literal["esmm", "independent", "aitm", "escm2_ipw", "escm2_dr", "dcmt"]
Balancing = Literal["equal", "fixed", "uncertainty", "dwa", "gradnorm", "famo", "pcgrad", "mgda", "cagrad", "upgrad"]


class PlainEncoder(Strict):
    """A reader of histories without sizes of its own."""

    kind: Literal["target_attention", "mean_pooling", "gru", "convolution"] = "target_attention"


class ActivationSizes(Strict):
    """How many units weigh an event for a target."""

    kind: Literal["din"]
    units: Width = 16


class BlockSizes(Strict):
    """How many blocks lie one above the other, and how many heads each has."""

    kind: Literal["transformer", "hstu"]
    blocks: int = Field(1, ge=1, le=8)
    heads: int = Field(2, ge=1, le=32)


EncoderSizes = Annotated[PlainEncoder | ActivationSizes | BlockSizes, Field(discriminator="kind")]


class LearningRates(Strict):
    """Learning rates: AdamW moves the dense weights, `embedding_optimizer` the embedding table."""

    dense: Rate = 0.005
    embedding: Rate = 0.05


class Recipe(Strict):
    """How a ranker is built and trained. The comments of conf/models/ple.yaml explain each knob."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    seed: int = Field(1, ge=0, lt=2**31)
    embedding_size: Width = 8
    unread: list[Literal["user_index", "item_index"]] = Field([])
    bucketize: list[str] = Field([])
    sequence_encoder: EncoderSizes = PlainEncoder()
    history_length: int = Field(SEQUENCE_LENGTH, ge=1, le=SEQUENCE_LENGTH)
    attention_size: Width = 32
    match_decay_days: list[Annotated[float, Field(ge=0.001, le=1000)]] = Field([2.0, 20.0], min_length=1, max_length=4)
    backbone: BackboneSizes = PLESizes()
    towers: Literal["task", "scenario"] = "task"
    tower_sizes: list[Width] = Field([16], min_length=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    task_relation: TaskRelation = "esmm"
    losses: dict[str, Loss] = Field({})
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    balancing: Balancing = "equal"
    task_weights: dict[str, Annotated[float, Field(ge=0, le=1_000_000)]] = Field({})
    learning_rate: LearningRates = LearningRates()
    weight_decay: float = Field(1e-5, ge=0, le=1)
    weight_average: float = Field(0.99, ge=0, lt=1)
    l2_embedding: float = Field(1e-6, ge=0, le=1)
    weight_by_propensity: bool = False
    negative_share: float = Field(1.0, gt=0, le=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: int = Field(4096, ge=1, le=1_000_000)
    shuffle_gb: float = Field(4.0, gt=0, le=100_000)
    max_epochs: int = Field(4, ge=1, le=1000)
    patience: int = Field(1, ge=1)
    warm_up: float = Field(0.0, ge=0, le=1)
    decay: Literal["none", "linear", "cosine"] = "none"
    embedding_optimizer: Literal["rowwise_adagrad", "lazy_adam"] = "rowwise_adagrad"
    embedding_table: Literal["whole", "sharded"] = "whole"
    warm_start: bool = True

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        heads = getattr(self.sequence_encoder, "heads", 1)
        if self.attention_size % heads:
            raise ValueError(f"attention_size {self.attention_size} is no multiple of sequence_encoder.heads {heads}")
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.task_weights and self.balancing != "fixed":
            raise ValueError(
                f"task_weights: balancing {self.balancing} reads none; take balancing: fixed, or task_weights: {{}}"
            )
        return self

    @model_validator(mode="after")
    def _check_table(self) -> Self:
        if self.embedding_table == "sharded" and self.embedding_optimizer != "rowwise_adagrad":
            raise ValueError(
                f"embedding_optimizer {self.embedding_optimizer} does not move a sharded table; take rowwise_adagrad, or "
                "embedding_table: whole"
            )
        return self


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: the file is missing or a key in it is unknown, missing or wrong.
    """
    return load_model(Path(path), Recipe, "conf/models/ple.yaml")
