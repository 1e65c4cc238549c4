"""The embedding table in parts: each rank holds a block of its rows, looked up and moved through TorchRec (Ivchenko et al. 2022).

For tables that the memory of one GPU has no room for. This is the one module that knows TorchRec and fbgemm, its kernels. Of N
rows rank r holds those from r · ceil(N / ranks) on, and their sums of squares, in its device's memory.

A look-up sends each distinct row's number to the rank that holds it, and gets its vector back. A step sends the numbers and the
gradients of all rows that the rank looked up since the step before (and gets their vectors once more, which fbgemm's backward
pass begins with): each row's gradients of all ranks are added up where it lies, and it moves there by row-wise Adagrad, with
the formula of training.optimizers.RowwiseAdagrad. Every rank must look up and step equally often, in one order: look-ups are
for one thread.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

from nightshelf.errors import InputError
from training.ranks import rank, ranks, ranks_here


class ShardedTable(nn.Module):
    """A table of embeddings of which this rank holds some rows.

    weight: those rows [n, D], in their order; they move by `move` alone. sums: their sums of squares [n].

    Args:
        whole: the table's first weights [N, D], the same in every rank, in any memory.
        device: where this rank's rows shall be: the CPU, or this process's GPU.
        l2: how hard a step pulls the rows that it moves towards 0.

    Raises:
        InputError: check_sharding's; or the table has too few rows, or vectors that fbgemm does not take.
    """

    def __init__(self, whole: torch.Tensor, device: torch.device, l2: float) -> None:
        super().__init__()
        check_sharding()
        self.num_embeddings, self.embedding_dim = whole.shape
        self._block = -(-self.num_embeddings // ranks())
        if (ranks() - 1) * self._block >= self.num_embeddings:
            raise InputError(
                f"embedding_table: {self.num_embeddings} rows are too few for {ranks()} processes; take fewer, or "
                "embedding_table: whole"
            )
        if self.embedding_dim % 4:
            raise InputError(
                f"embedding_size: {self.embedding_dim}; a sharded table needs a multiple of 4, or take embedding_table: whole"
            )
        # In a tuple, for it is no part of the module: its weights are `weight`, and it would not be moved or saved as a part is.
        self._torchrec = (_make_collection(self.num_embeddings, self.embedding_dim, device, l2),)
        (held,) = self._torchrec[0].parameters()
        self.weight = nn.Parameter(held.detach(), requires_grad=False)
        (state,) = self._torchrec[0].fused_optimizer.state_dict()["state"].values()
        self.sums: torch.Tensor = state["table.momentum1"].local_shards()[0].tensor
        self._looked_up: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.load(whole)

    @property
    def looked_up(self) -> list[torch.Tensor]:
        """Return the vectors of the look-ups since the last step: leaves of autograd, whose gradients are `learn`'s."""
        return [vectors for _, vectors in self._looked_up]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Look up rows [...]: [..., D]. All ranks at once, each with rows of its own."""
        # What TorchRec keeps for later calls must not be born in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            distinct, places = rows.unique(return_inverse=True)
            vectors = self._ask(distinct)
        if torch.is_grad_enabled():
            self._looked_up.append((distinct, vectors.requires_grad_()))
        return functional.embedding(places, vectors)

    def learn(self, gradients: Sequence[Sequence[torch.Tensor | None]], counts: bool) -> None:
        """Take the gradients of what was looked up, from each of this rank's slices, for the next step.

        What has none there moves nothing. Unless they count, another rank has brought the same.
        """
        for place, vectors in enumerate(self.looked_up):
            found = [part for of_slice in gradients if (part := of_slice[place]) is not None]
            vectors.grad = sum(found[1:], found[0]) if found and counts else None

    def move(self, rate: float) -> None:
        """Move the rows that were looked up, in all ranks at once, and forget the look-ups."""
        found = [(rows, vectors.grad) for rows, vectors in self._looked_up if vectors.grad is not None]
        self._looked_up.clear()
        rows = torch.cat([self.weight.new_empty(0, dtype=torch.int64), *(rows for rows, _ in found)])
        gradients = torch.cat([self.weight.new_empty(0, self.embedding_dim), *(gradient for _, gradient in found)])
        optimizer = self._torchrec[0].fused_optimizer
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()  # which sets the rate
        with torch.enable_grad():
            self._ask(rows).backward(gradients)

    def gather(self) -> torch.Tensor:
        """Return the whole table [N, D] in the first rank's main memory, and nothing [0, D] in the others. All ranks at once."""
        own = functional.pad(self.weight.detach().cpu(), (0, 0, 0, self._block - len(self.weight)))
        whole = own.new_empty(self._block * ranks() if rank() == 0 else 0, self.embedding_dim)
        distributed.gather(own, list(whole.chunk(ranks())) if rank() == 0 else None)
        return whole[: self.num_embeddings]

    @torch.no_grad()
    def load(self, whole: torch.Tensor) -> None:
        """Take this rank's rows from a whole table [N, D].

        Raises:
            InputError: it has another size.
        """
        if whole.shape != (self.num_embeddings, self.embedding_dim):
            raise InputError(
                f"a table of {whole.shape[0]} x {whole.shape[1]} weights does not fit into a sharded one of "
                f"{self.num_embeddings} x {self.embedding_dim}; load the table of a model with the same ids and embedding_size"
            )
        first = self._block * rank()
        self.weight.copy_(whole[first : first + len(self.weight)])

    def _ask(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the vectors [n, D] of rows [n] from the ranks that hold them."""
        from torchrec import KeyedJaggedTensor

        lengths = torch.tensor([len(rows)], device=rows.device)
        return self._torchrec[0](KeyedJaggedTensor(["rows"], rows, lengths=lengths))["rows"].values()


class ShardedAdagrad(torch.optim.Optimizer):
    """Row-wise Adagrad of a sharded table, like RowwiseAdagrad; it keeps what it has learnt in the table, and begins afresh."""

    def __init__(self, table: ShardedTable, lr: float) -> None:
        super().__init__([table.weight], {"lr": lr})
        self._table = table
        self.state[table.weight]["sum"] = table.sums.zero_()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the rows of the last gradient. All ranks at once."""
        self._table.move(self.param_groups[0]["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the state of this rank's part."""
        super().load_state_dict(state_dict)
        sums = self._table.sums
        self.state[self._table.weight]["sum"] = sums.copy_(self.state[self._table.weight]["sum"])


def check_sharding() -> None:
    """Say whether a table can be sharded here.

    Raises:
        InputError: there is one process only, or no TorchRec.
    """
    if ranks() == 1:
        raise InputError(
            "embedding_table: sharded needs several processes, each of which holds a part; start them with torchrun "
            "--nproc-per-node 2, or take embedding_table: whole"
        )
    missing = [name for name in ("torchrec", "fbgemm_gpu") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"embedding_table: sharded needs {' and '.join(missing)}, which this environment lacks; run `make "
            ".venv/torchrec/ready` and train with .venv/torchrec/bin/nightshelf, or take embedding_table: whole"
        )


def _make_collection(rows: int, width: int, device: torch.device, l2: float) -> Any:
    """Return TorchRec's collection of one table, sharded by rows over all ranks; its weights are not set yet."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
    from torchrec import EmbeddingCollection, EmbeddingConfig
    from torchrec.distributed.comm_ops import set_gradient_division
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
    from torchrec.distributed.types import ShardingEnv

    set_gradient_division(False)  # a batch's gradient is the ranks' sum, not their mean
    table = EmbeddingConfig(num_embeddings=rows, embedding_dim=width, name="table", feature_names=["rows"])
    empty = EmbeddingCollection(tables=[table], device=torch.device("meta"))
    adagrad = {
        "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        "eps": 1e-10,
        "weight_decay": l2,
        "weight_decay_mode": WeightDecayMode.L2,
        "bounds_check_mode": BoundsCheckMode.FATAL,
    }
    sharder = EmbeddingCollectionSharder(fused_params=adagrad)
    plan = construct_module_sharding_plan(
        empty,
        {"table": row_wise(compute_kernel="fused")},
        sharder=sharder,
        world_size=ranks(),
        local_size=ranks_here(),
        device_type=device.type,
    )
    return sharder.shard(empty, plan, ShardingEnv.from_process_group(distributed.group.WORLD), device)
