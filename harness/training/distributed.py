"""The processes that train one trial together, and what they must agree on.

Owns: sharding batches and combining the results. Must not know: how the processes were started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from harness.data.dataset import Images

T = TypeVar("T")


@dataclass(frozen=True)
class DistributedContext:
    """This process among `size`; alone by default. All hold the same data, in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes after every backward pass."""
        if self.size == 1:
            return module
        # It takes parameters of one kind of device. What lies elsewhere, such as γ on the CPU
        # beside a GPU, is left to whoever steps it (`InnerProblem.mean`).
        main = (self.device or torch.device("cpu")).type
        elsewhere = [name for name, p in module.named_parameters() if p.device.type != main]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, elsewhere)
        # The result differs from a single process's by rounding only; there are no buffers to sync.
        return DistributedDataParallel(module, broadcast_buffers=False)

    def share(self, batch: Images) -> tuple[Images, float]:
        """This process's part of a batch, and the weight of its mean loss.

        So weighted, the gradients' average over the processes is the gradient of the whole batch's
        mean loss. A process that gets no image of a small last batch repeats one, with weight 0.
        """
        if self.size == 1:
            return batch, 1.0
        index = torch.arange(self.rank, len(batch), self.size, device=batch.labels.device)
        if len(index) == 0:
            return batch.subset(index.new_zeros(1)), 0.0
        return batch.subset(index), self.size * len(index) / len(batch)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes, on the device that the value is on."""
        if self.size == 1:
            return value
        total = value.to(self.device, copy=True)
        distributed.all_reduce(total)
        return (total / self.size).to(value.device)

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """The items that this process works on: every `size`-th, from its rank on."""
        return items[self.rank :: self.size]

    def gather(self, own: list[Tensor], count: int) -> list[Tensor]:
        """What all processes made of their shards, `count` in all, in the items' order."""
        if self.size == 1:
            return own
        made: list[list[Tensor]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(made, [item.cpu() for item in own])
        return [made[i % self.size][i // self.size].to(self.device) for i in range(count)]

    def agree(self, decision: bool) -> bool:
        """The first process's decision."""
        if self.size == 1:
            return decision
        said = [decision]
        distributed.broadcast_object_list(said)
        return said[0]


ALONE = DistributedContext()
"""The one process of a trial that trains on one device."""
