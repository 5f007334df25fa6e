"""Storing frozen weights in fewer than 32 bits each.

Owns: which tensors are stored in which type, and how a forward pass with them runs. Must not know:
models by name, PEFT methods, training.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from harness.errors import UserError
from harness.spec import WeightDtype


def check_weight_dtype(dtype: WeightDtype) -> None:
    """Refuse what cannot be done on this machine.

    Raises:
        UserError: int8 without torchao.
    """
    if dtype == "int8" and importlib.util.find_spec("torchao") is None:
        raise UserError("backbone.frozen=int8 needs torchao: install it, or take bf16.")


def quantise_weights(model: nn.Module, dtype: WeightDtype) -> None:
    """Convert the weights of linear maps (bf16: of convolutions too) to a type, in place.

    Biases, norms, tokens and position embeddings, about 1 % of all, stay in fp32: they keep the
    residual stream in fp32. int8 has one scale per output feature and leaves activations alone.

    Raises:
        UserError: int8 without torchao.
    """
    check_weight_dtype(dtype)
    if dtype == "bf16":
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.data = layer.weight.data.bfloat16()
    elif dtype == "int8":
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        # torchao's compiler settings would change the arithmetic of everything that follows.
        quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False))


@contextmanager
def held_in_bf16(model: nn.Module) -> Iterator[None]:
    """Hold the frozen weights of linear maps and convolutions in bf16 for a while.

    Where every pass is under bf16 autocast, which would round the same weights again in each, no
    number changes.
    """
    kinds = (nn.Linear, nn.Conv2d)
    weights = [layer.weight for layer in model.modules() if type(layer) in kinds]
    frozen = [(weight, weight.data) for weight in weights if not weight.requires_grad]
    try:
        for weight, data in frozen:
            weight.data = data.bfloat16()
        yield
    finally:
        for weight, data in frozen:
            weight.data = data


def computing(model: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: bf16 autocast where weights are stored in bf16.

    They all are or none is, so the first one tells: to look at all of them in every pass would be
    a tenth of a step that trains one small block.
    """
    layers = (part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d))
    first = next(layers, None)
    if first is not None and first.weight.dtype == torch.bfloat16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def is_full(parameter: torch.Tensor) -> bool:
    """Whether a tensor is stored in full precision, so that it can be trained or merged into."""
    return type(parameter) is nn.Parameter and parameter.dtype != torch.bfloat16
