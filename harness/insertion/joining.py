"""How what modules give is added to the output of a linear layer, without a copy of it.

Owns: sums in a layer's own memory, with their gradients. Must not know: methods, sites, models.

Shapes: d columns of the output, of which a module has some; r rank; leading dimensions are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


class Term(NamedTuple):
    """What is added to the columns `start` to `stop` of an output.

    `value` `[.., stop - start]` itself; or, where `up` `[stop - start, r]` is given, `value @ upᵀ`
    with `value` `[.., r]`.
    """

    start: int
    stop: int
    value: Tensor
    up: Tensor | None

    def whole(self) -> Tensor:
        """The same without `up`."""
        return self.value if self.up is None else nn.functional.linear(self.value, self.up)


def added(output: Tensor, terms: Sequence[Term], *, is_free: bool) -> Tensor:
    """`output` `[.., d]` with every term in its columns, which no two terms share.

    Where `is_free` says that nobody has read `output` yet, the sum is written over it, and the
    backward pass hands its gradient on as it is: there is no copy in either direction. Else, and
    where types or shapes differ or a transform of `torch.func` is at work, it is a new tensor.
    """
    if is_free and _fits(output, terms):
        cast = [term._replace(up=_like(output, term.up)) for term in terms]
        if not torch.is_grad_enabled():
            return _written(output, cast)
        spans = [(term.start, term.stop, term.up is not None) for term in cast]
        flat = [tensor for term in cast for tensor in (term.value, term.up) if tensor is not None]
        result: Tensor = _AddOver.apply(spans, output, *flat)
        return result
    parts, end = [], 0
    for term in sorted(terms, key=lambda term: term.start):
        parts += [output[..., end : term.start], output[..., term.start : term.stop] + term.whole()]
        end = term.stop
    parts = [part for part in (*parts, output[..., end:]) if part.shape[-1]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _fits(output: Tensor, terms: Sequence[Term]) -> bool:
    """Whether all of it can be written over the output."""
    is_transformed = torch._C._are_functorch_transforms_active()
    if is_transformed or forward_ad._current_level >= 0 or not output.is_contiguous():
        return False
    for term in terms:
        width = term.stop - term.start if term.up is None else term.up.shape[1]
        if term.value.dtype != output.dtype or term.value.shape != (*output.shape[:-1], width):
            return False
    return True


def _like(output: Tensor, up: Tensor | None) -> Tensor | None:
    """In the type of the output, as autocast would have it."""
    return None if up is None else up.to(output.dtype)


def _written(output: Tensor, terms: Sequence[Term]) -> Tensor:
    """Write the sum over the output; without a graph."""
    rows = output.view(-1, output.shape[-1])
    for term in terms:
        columns = rows[:, term.start : term.stop]
        value = term.value.reshape(len(rows), -1)
        if term.up is None:
            columns.add_(value)
        else:  # not addmm_, whose FLOPs torch's counter does not know
            torch.addmm(columns, value, term.up.t(), out=columns)
    return output


class _AddOver(torch.autograd.Function):
    """The sum, written over the output of a layer that does not need it for its own gradient.

    torch's own in-place sum would copy the whole gradient for every term (`CopySlices`). The
    backward pass is made of ordinary operations, so it can be differentiated again.
    """

    @staticmethod
    def forward(
        ctx: Any, spans: Sequence[tuple[int, int, bool]], output: Tensor, *tensors: Tensor
    ) -> Tensor:
        left = iter(tensors)
        terms = [
            Term(start, stop, next(left), next(left) if is_low else None)
            for start, stop, is_low in spans
        ]
        ctx.spans = spans
        pairs = [(term.value, term.up) for term in terms if term.up is not None]
        ctx.save_for_backward(*(tensor for pair in pairs for tensor in pair))
        return _written(output.detach(), terms)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        saved = iter(ctx.saved_tensors)
        result: list[Tensor | None] = [None, gradient]
        for start, stop, is_low in ctx.spans:
            part = gradient[..., start:stop]
            if not is_low:
                result.append(part)
                continue
            value, up = next(saved), next(saved)
            wanted = ctx.needs_input_grad[len(result) : len(result) + 2]
            flat = part.reshape(-1, stop - start)
            result.append(torch.mm(flat, up).view(value.shape) if wanted[0] else None)
            narrow = value.reshape(len(flat), -1)
            result.append(torch.mm(flat.t(), narrow) if wanted[1] else None)
        return tuple(result)
