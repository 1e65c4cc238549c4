"""Sizes of backbones, as a recipe gives them under `backbone:`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nightshelf.yamlfile import Strict

Width = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(ge=0, le=1)]
Layers = Annotated[list[Width], Field(min_length=1)]


class PLESizes(Strict):
    """Sizes of progressive layered extraction."""

    kind: Literal["ple"] = "ple"
    levels: int = Field(1, ge=1, le=4)
    shared_experts: int = Field(2, ge=1, le=32)
    task_experts: int = Field(1, ge=1, le=32)
    expert_sizes: Layers = Field([32, 16])


class MMoESizes(Strict):
    """Sizes of the multi-gate mixture of experts."""

    kind: Literal["mmoe"]
    experts: Count = 4
    expert_sizes: Layers = Field([32, 16])


class PlainSizes(Strict):
    """Layer widths of the one network (shared_bottom), or of each task's (single_task, cross_stitch) or scenario's."""

    kind: Literal["shared_bottom", "single_task", "cross_stitch", "single_scenario"]
    sizes: Layers = Field([64, 32])


class StarSizes(Strict):
    """STAR: the width of the vector that it reads, of its layers, and of the auxiliary network's."""

    kind: Literal["star"]
    input: Width = 64
    sizes: Layers = Field([64, 32])
    auxiliary_sizes: Layers = Field([16])


class ADLSizes(Strict):
    """ADL: how many distributions rows are told apart by, and the layers of each one's network."""

    kind: Literal["adl"]
    input: Width = 64
    clusters: int = Field(4, ge=2, le=64)
    sizes: Layers = Field([64, 32])


class SARNetSizes(Strict):
    """SAR-Net: experts of all scenarios and of each one."""

    kind: Literal["sar_net"]
    input: Width = 64
    shared_experts: Count = 4
    scenario_experts: Count = 2
    expert_sizes: Layers = Field([32, 16])


class AdaSparseSizes(Strict):
    """AdaSparse: the layers that scenarios prune, and between what shares of a layer's units are to be pruned."""

    kind: Literal["adasparse"]
    input: Width = 64
    scenario_size: Width = 8
    sizes: Layers = Field([64, 32])
    least_pruned: Share = 0.15
    most_pruned: Share = 0.25

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.least_pruned > self.most_pruned:
            raise ValueError(f"least_pruned {self.least_pruned} lies above most_pruned {self.most_pruned}")
        return self


class PEPNetSizes(Strict):
    """PEPNet: gates on the vector (epnet), on the units of each task's layers (ppnet), or on both (pepnet)."""

    kind: Literal["epnet", "ppnet", "pepnet"]
    input: Width = 64
    scenario_size: Width = 8
    prior_size: Width = 16
    gate_size: Width = 16
    sizes: Layers = Field([64, 32])


class M2MSizes(Strict):
    """M2M: experts, and how many residual layers a task's meta tower has."""

    kind: Literal["m2m"]
    scenario_size: Width = 8
    experts: Count = 4
    expert_sizes: Layers = Field([32, 16])
    tower_layers: int = Field(2, ge=1, le=8)


class HiNetSizes(Strict):
    """HiNet: experts of the scenarios' layer (of all, and of each one), then of the tasks' (of all, and of each one)."""

    kind: Literal["hinet"]
    shared_experts: Count = 2
    scenario_experts: Count = 1
    expert_sizes: Layers = Field([32, 16])
    task_shared_experts: Count = 1
    task_experts: Count = 1
    task_sizes: Layers = Field([32, 16])


class HAMURSizes(Strict):
    """HAMUR: the layers, the width of the network that makes the adapters' cores, and the cores' and the adapters' widths."""

    kind: Literal["hamur"]
    input: Width = 64
    sizes: Layers = Field([64, 32])
    hyper_size: Width = 16
    core: int = Field(8, ge=1, le=64)
    adapter_size: Width = 16


class M3oESizes(Strict):
    """M3oE: the star-shaped entrance, and the layers of each of its experts (of all, of scenarios, of tasks)."""

    kind: Literal["m3oe"]
    input: Width = 64
    entrance_sizes: list[Width] = Field([64, 64], min_length=2, max_length=2)
    shared_experts: Count = 2
    expert_sizes: Layers = Field([32, 16])


BackboneSizes = Annotated[
    PLESizes
    | MMoESizes
    | PlainSizes
    | StarSizes
    | ADLSizes
    | SARNetSizes
    | AdaSparseSizes
    | PEPNetSizes
    | M2MSizes
    | HiNetSizes
    | HAMURSizes
    | M3oESizes,
    Field(discriminator="kind"),
]
