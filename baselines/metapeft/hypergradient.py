"""Gradients of the outer loss through the inner training, dL_val(φ*(γ), γ)/dγ (Eq. 7).

All kinds share the direct part ∂L_val/∂γ and differ in how they account for γ moving φ. Owns: these
formulas. Must not know: any network: losses are functions, φ a list of tensors, γ one tensor.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.errors import UserError

Params = Sequence[Tensor]

Batch = TypeVar("Batch")
"""Whatever the losses take."""


@dataclass(frozen=True)
class InnerStep(Generic[Batch]):
    """One step of SGD as it was taken: φ and its velocity before it, its batch and its rate."""

    batch: Batch
    rate: float
    params: Params
    velocity: Params


@dataclass(frozen=True, kw_only=True)
class Bilevel(Generic[Batch]):
    """Eq. 7 at one point: γ and φ now, both losses, and the last inner steps, oldest first.

    `gamma` requires a gradient and both losses read it by themselves.
    """

    gamma: Tensor
    params: Params
    inner_loss: Callable[[Params, Batch], Tensor]
    outer_loss: Callable[[Params, Batch], Tensor]
    outer_batches: Sequence[tuple[Batch, float]]
    """Batches and their weights, which sum to 1."""
    steps: Sequence[InnerStep[Batch]] = ()
    momentum: float = 0.0
    weight_decay: float = 0.0

    def inner_gradient(self, params: Params, batch: Batch) -> Params:
        """Gradient of the inner loss with its weight decay, as SGD uses it, with a graph."""
        gradient = grad(self.inner_loss(params, batch), params, create_graph=True)
        return [g + self.weight_decay * p for g, p in zip(gradient, params, strict=True)]


class Hypergradient(ABC):
    """A way to approximate dL_val/dγ."""

    steps = 0
    """How many of the last inner steps it needs; 0 leaves φ's dependence on γ out."""
    passes = 0
    """Forward and backward passes of a training batch that it adds, a double backward being one."""

    def __call__(self, problem: Bilevel[Batch]) -> tuple[float, Tensor]:
        """The outer loss and its gradient with respect to γ."""
        wrt = [problem.gamma, *(problem.params if self.steps else [])]
        total, sums = 0.0, [torch.zeros_like(t) for t in wrt]
        for batch, weight in problem.outer_batches:
            loss = problem.outer_loss(problem.params, batch)
            for part, gradient in zip(sums, grad(loss, wrt), strict=True):
                part += weight * gradient
            total += weight * float(loss.detach())
        direct, through = sums[0], sums[1:]
        if not self.steps or not problem.steps:
            return total, direct
        # The fused attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            return total, direct + self.indirect(problem, through)

    @abstractmethod
    def indirect(self, problem: Bilevel[Batch], through: Params) -> Tensor:
        """(dφ/dγ)ᵀ `through`, where `through` is ∂L_val/∂φ."""


class FirstOrder(Hypergradient):
    """The paper's Eq. 9: φ does not depend on γ, so only the direct part is left."""

    def indirect(self, problem: Bilevel[Batch], through: Params) -> Tensor:
        return torch.zeros_like(problem.gamma)


class Unrolled(Hypergradient):
    """Exact differentiation through the last T steps of SGD with momentum."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.passes = 2 * steps

    def indirect(self, problem: Bilevel[Batch], through: Params) -> Tensor:
        first = problem.steps[0]
        params: Params = [p.detach().requires_grad_() for p in first.params]
        velocity: Params = first.velocity
        for step in problem.steps:
            gradient = problem.inner_gradient(params, step.batch)
            velocity = [problem.momentum * v + g for v, g in zip(velocity, gradient, strict=True)]
            params = [p - step.rate * v for p, v in zip(params, velocity, strict=True)]
        (result,) = grad(params, problem.gamma, grad_outputs=through)
        return result


class FiniteDifference(Hypergradient):
    """Second order through the last step, by a central difference in φ (as DARTS does)."""

    steps = 1
    passes = 2
    RADIUS = 0.01
    """Length of the step in φ, whatever the length of ∂L_val/∂φ."""

    def indirect(self, problem: Bilevel[Batch], through: Params) -> Tensor:
        step = problem.steps[-1]
        length = torch.cat([v.flatten() for v in through]).norm()
        if length == 0:
            return torch.zeros_like(problem.gamma)
        epsilon = self.RADIUS / length
        sides = []
        for sign in (1, -1):
            moved = [p + sign * epsilon * v for p, v in zip(step.params, through, strict=True)]
            sides.append(grad(problem.inner_loss(moved, step.batch), problem.gamma)[0])
        return -step.rate * (sides[0] - sides[1]) / (2 * float(epsilon))


class Neumann(Hypergradient):
    """Implicit differentiation at φ, with T terms of the Neumann series for the inverse Hessian.

    H⁻¹v ≈ η Σⱼ (I − ηH)ʲ v with η the inner rate. Assumes that φ solves the inner problem.
    """

    steps = 1

    def __init__(self, terms: int) -> None:
        self.terms = terms
        self.passes = 2 + terms

    def indirect(self, problem: Bilevel[Batch], through: Params) -> Tensor:
        step = problem.steps[-1]
        params = [p.detach().requires_grad_() for p in problem.params]
        gradient = problem.inner_gradient(params, step.batch)
        term, total = list(through), list(through)
        for _ in range(self.terms):
            product = grad(gradient, params, grad_outputs=term, retain_graph=True)
            term = [t - step.rate * h for t, h in zip(term, product, strict=True)]
            total = [a + t for a, t in zip(total, term, strict=True)]
        (mixed,) = grad(gradient, problem.gamma, grad_outputs=total)
        return -step.rate * mixed


FORMS = "first_order, darts_fd, unrolled:T, neumann:T"


def parse_hypergradient(text: str) -> Hypergradient:
    """Read `first_order`, `darts_fd`, `unrolled:3` or `neumann:5`.

    Raises:
        UserError: none of these.
    """
    match = re.fullmatch(r"(first_order|darts_fd)|(unrolled|neumann):([1-9]\d*)", text)
    if not match:
        raise UserError(f"Bad hypergradient {text!r}; write one of: {FORMS} with T >= 1.")
    plain, kind, count = match.groups()
    if plain:
        return FirstOrder() if plain == "first_order" else FiniteDifference()
    return Unrolled(int(count)) if kind == "unrolled" else Neumann(int(count))
