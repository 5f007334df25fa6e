"""How a method can learn something of its own between the trainer's steps.

Owns: the `InnerProblem` as such a method sees it, and the points where it is called. Must not know:
which methods do so, or what they learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from harness.data.dataset import Images, ImageSet
from harness.spec import Recipe


class Loss(Protocol):
    """The training loss of a batch, the mean over its images, with its graph."""

    def __call__(
        self,
        batch: Images,
        parameters: Mapping[str, Tensor] | None = None,
        *,
        counts: Tensor | None = None,
    ) -> Tensor:
        """`parameters` replace those of the same names; None takes the current ones.

        `counts` `[classes]` are the images of each class that a logit-adjusted loss takes its prior
        from; None: those of the training images.
        """


@dataclass(frozen=True, kw_only=True)
class InnerProblem:
    """The inner problem of Eq. 8: the training problem at its current point."""

    parameters: Mapping[str, nn.Parameter]
    """What the trainer's optimiser trains, by name in the classifier."""
    optimiser: torch.optim.Optimizer
    images: ImageSet
    classes: int
    """Of the dataset, whether or not all of them have images here."""
    loss: Loss
    batch: Callable[[Tensor, torch.Generator], Images]
    """Training images at some indices, augmented as in training."""
    recipe: Recipe
    seed: int
    mean: Callable[[Tensor], Tensor]
    """Mean of a tensor over the processes that train the trial together."""


class TrainingHook:
    """Called by the trainer around its steps; this one does nothing."""

    resumable = True
    """Training can resume from a checkpoint; False where the hook keeps a state of its own."""

    def __init__(self) -> None:
        self.trajectory: list[dict[str, float]] = []
        """One row per step of the method's own, written beside the trial's record."""
        self.images_forward = 0
        self.images_backward = 0
        """Images passed through the model beside those of the trainer's own steps."""
        self.passes = 0
        """The forward passes that took them; as many were passed backward."""

    def passed(self, forward: int, backward: int, passes: int) -> None:
        """Count images and passes beside those of the trainer's own steps."""
        self.images_forward += forward
        self.images_backward += backward
        self.passes += passes

    @property
    def leaves_batches_alone(self) -> bool:
        """Whether it neither looks at the batches of inner steps nor keeps images out of them."""
        own, none = type(self), TrainingHook
        return own.before_step is none.before_step and own.excluded is none.excluded

    @property
    def does_nothing(self) -> bool:
        """Whether it is this one, so that only the optimiser changes anything."""
        return type(self) is TrainingHook

    def freeze(self, classifier: nn.Module) -> None:
        """Exclude from the inner steps what they must not train (clear `requires_grad`)."""

    def start(self, inner: InnerProblem) -> None:
        """Before the first step."""

    def epochs(self, recipe: Recipe) -> int:
        """How many epochs to run; the learning-rate schedule keeps the recipe's length."""
        return recipe.epochs

    def excluded(self) -> Tensor | None:
        """Training images that the next inner batch must not hold, as a mask `[n]` on the CPU."""
        return None

    def before_step(self, batch: Images) -> None:
        """The next inner step will be on `batch`."""

    def after_step(self) -> None:
        """An inner step was taken."""

    def after_epoch(self) -> None:
        """An epoch of inner steps has ended; its scores are not taken yet."""


class Several(TrainingHook):
    """Hooks of several parts of one method, the outermost first: it says how long the training is.

    The rows that are written are its own too.
    """

    def __init__(self, hooks: Sequence[TrainingHook]) -> None:
        super().__init__()
        self._hooks = hooks
        self.trajectory = hooks[0].trajectory
        self.resumable = all(hook.resumable for hook in hooks)

    @property
    def leaves_batches_alone(self) -> bool:
        return all(hook.leaves_batches_alone for hook in self._hooks)

    def freeze(self, classifier: nn.Module) -> None:
        for hook in self._hooks:
            hook.freeze(classifier)

    def start(self, inner: InnerProblem) -> None:
        for hook in self._hooks:
            hook.start(inner)

    def epochs(self, recipe: Recipe) -> int:
        return self._hooks[0].epochs(recipe)

    def excluded(self) -> Tensor | None:
        masks = [mask for hook in self._hooks if (mask := hook.excluded()) is not None]
        return torch.stack(masks).any(dim=0) if masks else None

    def before_step(self, batch: Images) -> None:
        for hook in self._hooks:
            hook.before_step(batch)

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def after_epoch(self) -> None:
        for hook in self._hooks:
            hook.after_epoch()
            self.passed(hook.images_forward, hook.images_backward, hook.passes)
            hook.images_forward = hook.images_backward = hook.passes = 0


def joined(hooks: Sequence[TrainingHook]) -> TrainingHook:
    """One hook for all of them, without those that do nothing."""
    acting = [hook for hook in hooks if not hook.does_nothing]
    if len(acting) < 2:
        return acting[0] if acting else TrainingHook()
    return Several(acting)
