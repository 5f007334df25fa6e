"""Training and testing one classifier. Never names a PEFT method.

Owns: the loss, the epoch loop, the early-stop and epoch rules, counting images. Must not know:
studies, stores, where data comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from harness.data.dataset import Dataset, Images, Split, epoch_batches, normalised
from harness.insertion.hooks import Inner
from harness.spec import Change, Recipe
from harness.training.checkpoint import States, Trained
from harness.training.classifier import Classifier
from harness.training.clock import Stopwatch
from harness.training.distributed import ALONE, World
from harness.training.evaluation import evaluate

EARLY_STOP_GAIN = 0.003
EARLY_STOP_EPOCHS = 3
"""The paper's rule: accuracy must gain 0.3 points within 3 epochs."""


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    states = States(classifier, optimiser, schedule, scaler)
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
