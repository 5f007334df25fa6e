"""Training and testing one classifier. Never names a PEFT method.

Owns: the loss, the epoch loop, the early-stop and epoch rules, counting images. Must not know:
studies, stores, where data comes from.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, normalize
from torch.utils.flop_counter import FlopCounterMode

from harness.backbones import features
from harness.blocks import Backbone
from harness.clock import Spent, Stopwatch
from harness.data import Dataset, Images, ImageSet, Split, epoch_batches, normalised
from harness.errors import saving
from harness.hooks import Inner
from harness.insertion import Attachment
from harness.metrics import SplitMetrics, split_metrics
from harness.spec import Change, Recipe
from harness.world import World

EVAL_BATCH = 500
"""Fixed, because another batch size could round another way."""
EARLY_STOP_GAIN = 0.003
EARLY_STOP_EPOCHS = 3
"""The paper's rule: accuracy must gain 0.3 points within 3 epochs."""

ALONE = World()

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Classifier(nn.Module):
    """A backbone with its attachment, and a head. The frozen backbone is not a submodule."""

    def __init__(self, backbone: Backbone, attachment: Attachment, head: nn.Module) -> None:
        super().__init__()
        self._backbone = [backbone]
        self.attachment = attachment
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """`[n, 3, h, w]` -> `[n, d]`."""
        return features(self._backbone[0], images)

    def forward(self, images: Tensor) -> Tensor:
        """`[n, 3, h, w]` -> logits `[n, classes]`."""
        logits: Tensor = self.head(self.features(images))
        return logits


@dataclass
class Trained:
    """Outcome of `train`; without scores when the loss stopped being finite."""

    diverged: bool = False
    pruned: bool = False
    epochs_run: int = 0
    earlier: Spent = (0.0, 0.0)
    """What was spent before it was continued from a checkpoint."""
    tested_epoch: int | None = None
    select: SplitMetrics | None = None
    test: SplitMetrics | None = None
    images_forward: int = 0
    images_backward: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    trajectory: list[dict[str, float]] = field(default_factory=list)
    """What the method learned besides, step by step (`TrainingHook.trajectory`)."""


class _States(NamedTuple):
    """What a training changes, together, to be kept between epochs."""

    classifier: Classifier
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler

    def save(
        self,
        path: Path,
        result: Trained,
        best: dict[str, Tensor] | None,
        changes: Sequence[Change],
    ) -> None:
        """Write all of it, and which `changes` were made, whole or not at all.

        Raises:
            NotSavedError: it cannot be written.
        """
        assert result.select is not None
        state = {
            "modules": [part.state_dict() for part in self],
            "result": {**vars(result), "select": result.select.model_dump_json()},
            "best": best,
            "changes": _made(changes, result.epochs_run),
        }
        part = path.with_name(f"{path.name}.part")
        content = io.BytesIO()
        torch.save(state, content)
        with saving(path):
            part.write_bytes(content.getbuffer())
            part.replace(path)

    def load(
        self, path: Path, device: torch.device, changes: Sequence[Change]
    ) -> tuple[Trained, dict[str, Tensor] | None] | None:
        """Put everything back; what `save` was given.

        None if there is no checkpoint, or one of a training whose changes were others.
        """
        if not path.is_file():
            return None
        state = torch.load(path, map_location=device, weights_only=True)
        if state["changes"] != _made(changes, state["result"]["epochs_run"]):
            return None
        for part, kept in zip(self, state["modules"], strict=True):
            part.load_state_dict(kept)  # type: ignore[attr-defined]
        result = Trained(**state["result"])
        result.select = SplitMetrics.model_validate_json(state["result"]["select"])
        return result, state["best"]


def _made(changes: Sequence[Change], epochs: int) -> list[str]:
    """The changes made in the course of the first epochs."""
    return [change.model_dump_json() for change in changes if change.after < epochs]


def logit_adjustment(counts: Tensor, tau: float) -> Tensor:
    """`tau * log(prior)` of the training classes `[classes]`, added to logits in training only."""
    return tau * (counts / counts.sum()).log()


def train(
    classifier: Classifier,
    dataset: Dataset,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    log: Callable[[dict[str, Any]], None],
    changes: Sequence[Change] = (),
    goes_on: Callable[[dict[str, Any]], bool] | None = None,
    checkpoint: Path | None = None,
    parts: int = 1,
    world: World = ALONE,
) -> Trained:
    """Train by the recipe, score the selection split every epoch, and the test split once.

    `log` gets one row per epoch: epoch, learning rate, train loss, selection scores. `goes_on` is
    asked with it after every epoch but the last; a no ends the training there, without a test.
    The state after every epoch lies in `checkpoint`, and training starts from what is found there;
    a method that keeps a state of its own between steps starts again instead. Every batch is
    passed in so many `parts`, whose gradients are added up.
    """
    device = split.train.labels.device
    watch = Stopwatch(device)
    hook = classifier.attachment.training_hook()
    hook.freeze(classifier)
    parameters = {n: p for n, p in classifier.named_parameters() if p.requires_grad}
    rate = recipe.lr * math.sqrt(recipe.batch_size / 128)
    optimiser = torch.optim.SGD(
        parameters.values(), lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    shift = torch.zeros(len(split.train_counts), device=device)
    if recipe.loss == "logit_adjusted":
        shift = logit_adjustment(split.train_counts, recipe.tau)

    def loss_of(
        batch: Images,
        parameters: Mapping[str, Tensor] | None = None,
        *,
        through: nn.Module = classifier,
    ) -> Tensor:
        images = normalised(batch.pixels, dataset)
        with autocast(recipe, device):
            logits = (
                through(images)
                if parameters is None
                else functional_call(classifier, dict(parameters), (images,))
            )
        return cross_entropy(logits.float() + shift, batch.labels)

    hook.start(
        Inner(
            parameters=parameters,
            optimiser=optimiser,
            images=split.train,
            loss=loss_of,
            batch=lambda index, rng: split.train.augmented(index, recipe, rng),
            recipe=recipe,
            seed=seed,
        )
    )
    schedule: torch.optim.lr_scheduler.LRScheduler = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=recipe.epochs)
        if recipe.schedule == "cosine"
        else torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    model = world.wrap(classifier)

    def backward(batch: Images) -> Tensor:
        """Add the batch's gradient to the parameters; its mean loss."""
        total = torch.zeros((), device=device)
        own, weight = world.share(batch)
        for index in torch.arange(len(own), device=own.labels.device).tensor_split(parts):
            if len(index):
                part = own if parts == 1 else own.subset(index)
                loss = loss_of(part, through=model) * (weight * len(index) / len(own))
                scaler.scale(loss).backward()
                total += loss.detach()
        return world.mean(total)

    result = Trained(trajectory=hook.trajectory)
    states = _States(classifier, optimiser, schedule, scaler)
    best: dict[str, Tensor] | None = None
    epochs = hook.epochs(recipe)
    first, lr = 0, recipe.lr
    kept = None if checkpoint is None else states.load(checkpoint, device, changes)
    if kept is not None:
        result, best = kept
        first, watch = result.epochs_run, Stopwatch(device, result.earlier)
        for row in result.history:
            log(row)
        for change in changes:
            if change.after < first:  # strengths are no part of the state
                classifier.attachment.set_strengths(dict(change.placement.items()))
                lr = change.lr
        if goes_on is not None and not world.agree(goes_on(result.history[-1])):
            result.pruned = True
            return result
    for epoch in range(first, epochs):
        for change in changes:
            if change.after == epoch:
                classifier.attachment.set_strengths(dict(change.placement.items()))
                _scale_rate(optimiser, schedule, change.lr / lr)
                lr = change.lr
        total, seen = torch.zeros((), device=device), 0
        for batch in epoch_batches(split.train, recipe, seed, epoch, hook.excluded):
            hook.before_step(batch)
            optimiser.zero_grad(set_to_none=True)
            loss = backward(batch)
            scaler.step(optimiser)
            scaler.update()
            total += loss * len(batch)
            seen += len(batch)
            hook.after_step()
        hook.after_epoch()
        result.epochs_run = epoch + 1
        result.images_forward += seen + hook.images_forward
        result.images_backward += seen + hook.images_backward
        hook.images_forward = hook.images_backward = 0
        train_loss = float(total) / seen
        if not math.isfinite(train_loss):
            result.diverged = True
            result.select = result.tested_epoch = None
            log({"epoch": epoch, "lr": rate, "train_loss": None, "diverged": True})
            return result
        scores = evaluate(classifier, dataset, split.select, world)
        result.images_forward += len(split.select)
        row = {
            "epoch": epoch,
            "lr": optimiser.param_groups[0]["lr"],
            "train_loss": train_loss,
            "select": scores.model_dump(mode="json", exclude={"per_class", "class_counts"}),
        }
        log(row)
        result.history.append(row)
        better = result.select is None or scores.class_mean > result.select.class_mean
        if recipe.epoch_rule == "last" or better:
            result.select, result.tested_epoch = scores, epoch
            if recipe.epoch_rule == "best":
                best = {k: v.detach().clone() for k, v in classifier.state_dict().items()}
        schedule.step()
        if recipe.early_stop and stalled([r["select"]["class_mean"] for r in result.history]):
            break
        if epoch + 1 == epochs:
            break
        if checkpoint is not None and hook.resumable and world.rank == 0:
            states.save(checkpoint, replace(result, earlier=watch.spent), best, changes)
        if goes_on is not None and not world.agree(goes_on(row)):
            result.pruned = True
            return result
    if best is not None:
        classifier.load_state_dict(best)
    if split.test is split.select:
        result.test = result.select
    else:
        result.test = evaluate(classifier, dataset, split.test, world)
        result.images_forward += len(split.test)
    return result


def _scale_rate(
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    factor: float,
) -> None:
    """Raise or lower the learning rate, now and in the rest of its schedule."""
    for group in optimiser.param_groups:
        group["lr"] *= factor
    schedule.base_lrs = [base * factor for base in schedule.base_lrs]


def stalled(scores: list[float]) -> bool:
    """The paper's early stop: the last epochs gained less than the threshold on all before."""
    before, recent = scores[:-EARLY_STOP_EPOCHS], scores[-EARLY_STOP_EPOCHS:]
    return bool(before) and max(recent) - max(before) < EARLY_STOP_GAIN


@contextmanager
def autocast(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Mixed precision of the training forward pass; evaluation stays in fp32, as released."""
    with torch.autocast(
        device.type, dtype=AUTOCAST.get(recipe.precision), enabled=recipe.precision in AUTOCAST
    ):
        yield


@torch.inference_mode()
def evaluate(
    classifier: Classifier, dataset: Dataset, images: ImageSet, world: World = ALONE
) -> SplitMetrics:
    """Score a split, without logit adjustment."""
    batches = images.parts(EVAL_BATCH)
    own = [classifier.features(normalised(p.plain(), dataset)) for p in world.turn(batches)]
    feats = world.in_turn(own, len(batches))
    scores = torch.cat([classifier.head(batch) for batch in feats])
    return split_metrics(
        predictions=scores.argmax(dim=1).cpu().numpy(),
        labels=images.labels.cpu().numpy(),
        features=torch.cat(feats).double().cpu().numpy(),
        loss=float(cross_entropy(scores, images.labels)),
        groups=dataset.groups,
        num_classes=len(dataset.classes),
    )


@torch.inference_mode()
def embed(classifier: Classifier, dataset: Dataset, images: ImageSet) -> Tensor:
    """Features of images `[n, d]`, as the head sees them."""
    batches = images.parts(EVAL_BATCH)
    return torch.cat([classifier.features(normalised(p.plain(), dataset)) for p in batches])


@torch.inference_mode()
def class_means(backbone: Backbone, dataset: Dataset, images: ImageSet) -> Tensor:
    """Unit-length class means of frozen features `[classes, d]`, the head's starting weights.

    Of images as they are tested. The released code resizes to the input size itself for this; one
    view for both lets a pack hold one size.
    """
    batches = images.parts(EVAL_BATCH)
    feats = torch.cat([features(backbone, normalised(p.plain(), dataset)) for p in batches])
    sums = torch.zeros(len(dataset.classes), feats.shape[1], device=feats.device)
    return normalize(sums.index_add_(0, images.labels, feats), dim=1)


def flops_per_image(classifier: Classifier, image: Tensor) -> tuple[int, int]:
    """FLOPs of one image `[1, 3, h, w]`: forward alone, and the backward pass that training adds.

    Counted on the operations that run (matrix products, 2 per multiply-add), so the backward pass
    reaches only as low as the lowest adapted site. Attention is counted unfused: torch has no
    formula for the fused backward on every device.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = classifier(image)
        forward = counter.get_total_flops()
        logits.sum().backward()
    for parameter in classifier.parameters():
        parameter.grad = None
    return forward, counter.get_total_flops() - forward
