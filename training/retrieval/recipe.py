"""The recipe of a two-tower model: every knob of its training, read from a file of conf/retrieval/."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from nightshelf.yamlfile import Strict, load_model
from training.backbone_sizes import Width
from training.recipe import BlockSizes, LearningRates, Rate


class RetrievalRates(LearningRates):
    """Beside those of dense weights and of the embedding table the rate of the trend's weights."""

    trend: Rate = 0.001


class ItemRegression(Strict):
    """What a regression of items on items (EASE) adds to the scores, and how strongly its weights are held back."""

    weight: float = Field(0.3, gt=0, le=100)
    ridge: float = Field(1000.0, gt=0, le=1e9)


class RetrievalRecipe(Strict):
    """How a two-tower model is built and trained. The comments of conf/retrieval/two_tower.yaml explain each knob."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    seed: int = Field(1, ge=0, lt=2**31)
    acts_days: int = Field(30, ge=1, le=1000)
    embedding_size: Width = 32
    vector_size: Width = 64
    sequence_encoder: BlockSizes = BlockSizes(kind="hstu")
    history_length: int = Field(50, ge=1, le=500)
    horizon_days: float = Field(7.0, gt=0, le=400)
    trend_half_lives_days: list[Annotated[float, Field(gt=0, le=1000)]] = Field([0.5, 3.0, 14.0], max_length=6)
    trends_per_day: int = Field(1, ge=1, le=96)
    half_life_days: float = Field(7.0, gt=0, le=10_000)
    users_per_batch: int = Field(256, ge=1, le=100_000)
    positions_per_user: int = Field(8, ge=1, le=500)
    negatives: int = Field(1024, ge=1, le=1_000_000)
    epochs: int = Field(8, ge=1, le=1000)
    dropout: float = Field(0.1, ge=0, lt=1)
    learning_rate: RetrievalRates = RetrievalRates(dense=0.001, embedding=0.05)
    weight_decay: float = Field(0.01, ge=0, le=1)
    candidates: int = Field(100, ge=1, le=10_000)
    least_recall: float = Field(1.0, ge=0.5, le=1)
    item_regression: ItemRegression | None = None

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.vector_size % self.sequence_encoder.heads:
            raise ValueError(
                f"vector_size {self.vector_size} is no multiple of sequence_encoder.heads {self.sequence_encoder.heads}"
            )
        return self


def load_retrieval_recipe(path: Path | str) -> RetrievalRecipe:
    """Read a recipe.

    Raises:
        InputError: the file is missing or a key in it is unknown, missing or wrong.
    """
    return load_model(Path(path), RetrievalRecipe, "conf/retrieval/two_tower.yaml")
