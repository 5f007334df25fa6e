"""Training and testing one classifier. Never names a PEFT method.

Owns: the loss, the training loop, the early-stop and epoch rules, counting images. Must not know:
studies, stores, where data comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from harness.data.dataset import Dataset, Images, ImageSet, Split, epoch_batches, normalised
from harness.data.mixing import mixed
from harness.insertion.hooks import InnerProblem
from harness.metrics import PER_IMAGE, SplitMetrics
from harness.rng import generator
from harness.spec import Change, Recipe
from harness.training.arithmetic import autocast, evaluated_in
from harness.training.checkpoint import Checkpoint, Row, States, Trained
from harness.training.classifier import Classifier
from harness.training.clock import Seconds, Stopwatch
from harness.training.distributed import ALONE, DistributedContext
from harness.training.evaluation import evaluate, passes_over
from harness.training.optimiser import make_optimiser, make_schedule
from harness.training.prefix import BegunBatch, Prefixes, begun_epoch

EARLY_STOP_GAIN = 0.003
EARLY_STOP_EPOCHS = 3
"""The paper's rule: accuracy must gain 0.3 points within 3 epochs."""


class TrainingLoop:
    """One training from its start, or its checkpoint, to its test: the state and the steps.

    Every batch is split into so many `micro_batches`, whose gradients accumulate. With `prefixes`,
    in one process and without micro-batches, what frozen blocks compute is kept there and read
    from there; no number depends on it.
    """

    def __init__(
        self,
        classifier: Classifier,
        dataset: Dataset,
        split: Split,
        recipe: Recipe,
        *,
        seed: int,
        changes: Sequence[Change] = (),
        micro_batches: int = 1,
        distributed: DistributedContext = ALONE,
        prefixes: Prefixes | None = None,
    ) -> None:
        self._classifier, self._dataset, self._split = classifier, dataset, split
        self._recipe, self._seed, self._changes = recipe, seed, changes
        self._micro_batches, self._distributed = micro_batches, distributed
        self._prefixes = prefixes
        self._device = split.train.labels.device
        self._watch = Stopwatch(self._device)
        self._hook = classifier.attachment.training_hook()
        self._hook.freeze(classifier)
        parameters = {n: p for n, p in classifier.named_parameters() if p.requires_grad}
        self._first_rate = recipe.first_rate
        self._optimiser = make_optimiser(classifier, parameters, recipe)
        self._logit_shift = self._shift(split.train_counts)
        # Before the schedule is made, because the hook may add to what the optimiser trains.
        self._hook.start(self._inner_problem(parameters))
        self._schedule = make_schedule(recipe, self._optimiser)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=recipe.precision == "fp16")
        self._model = distributed.wrap(classifier)
        self._states = States(classifier, self._optimiser, self._schedule, self._scaler)
        self._result = Trained(trajectory=self._hook.trajectory)
        self._best: dict[str, Tensor] | None = None
        self._lr = recipe.lr  # or that of the last change; the schedule is on top of it

    def run(
        self,
        log: Callable[[Row], None],
        should_continue: Callable[[Row], bool] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Trained:
        """Train by the recipe, score the selection split as it says, and the test split once.

        `log` gets one row per epoch: epoch, learning rate, train loss, selection scores if it was
        scored. `should_continue` is asked with it after every epoch but the last; False ends the
        training there, without a test, and so does divergence. The state after every epoch is
        written to `checkpoint`, and training resumes from what is found there; a method that keeps
        a state of its own between steps starts again instead.

        Raises:
            NotSavedError: the checkpoint cannot be written.
            TakenOver: another process trains in the meantime (`Checkpoint`).
        """
        epochs = self._hook.epochs(self._recipe)
        is_resumed = checkpoint is not None and self._resume(checkpoint, log)
        result = self._result
        if is_resumed and self._is_stopped(should_continue):
            return result
        for epoch in range(result.epochs_run, epochs):
            train_loss = self._epoch(epoch)
            is_last = epoch + 1 == epochs
            # The epoch's loss is of before its last step, whose overflow only the scores show.
            is_finite = math.isfinite(train_loss)
            if not (is_finite and self._score(epoch, train_loss, log, is_last=is_last)):
                shown = train_loss if is_finite else None
                log({"epoch": epoch, "lr": self._first_rate, "train_loss": shown, "diverged": True})
                return self._diverged()
            self._schedule.step()
            if is_last or (self._recipe.early_stop and stalled(_scores(result))):
                break
            if checkpoint is not None and self._hook.resumable and self._distributed.rank == 0:
                now = replace(result, earlier=self._watch.spent, earlier_saved=self._saved)
                self._states.save(checkpoint, now, self._best, self._changes)
            if self._is_stopped(should_continue):
                return result
        return result if self._test() else self._diverged()

    def _diverged(self) -> Trained:
        """What becomes of a training whose numbers stopped being finite: it has no scores."""
        self._result.diverged = True
        self._result.select = self._result.tested_epoch = None
        return self._result

    @property
    def _saved(self) -> Seconds:
        """What kept activations have saved since the first epoch."""
        wall, device = (0.0, 0.0) if self._prefixes is None else self._prefixes.saved
        return wall + self._result.earlier_saved[0], device + self._result.earlier_saved[1]

    def _resume(self, checkpoint: Checkpoint, log: Callable[[Row], None]) -> bool:
        """Put back what the checkpoint holds, and log its epochs again; False if there is none."""
        kept = self._states.load(checkpoint, self._device, self._changes)
        if kept is None:
            return False
        self._result, self._best = kept
        self._watch = Stopwatch(self._device, self._result.earlier)
        for row in self._result.history:
            log(row)
        for change in self._changes:
            if change.after < self._result.epochs_run:  # strengths are no part of the state
                self._classifier.attachment.set_strengths(dict(change.placement.items()))
                self._lr = change.lr
        return True

    def _is_stopped(self, should_continue: Callable[[Row], bool] | None) -> bool:
        """Ask about the last epoch; a no makes it a pruned trial."""
        if should_continue is None:
            return False
        answer = should_continue(self._result.history[-1])
        self._result.pruned = not self._distributed.agree(answer)
        return self._result.pruned

    def _epoch(self, epoch: int) -> float:
        """Train one epoch; returns its mean loss."""
        for change in self._changes:
            if change.after == epoch:
                self._make(change)
        hook, result = self._hook, self._result
        self._classifier.train()
        # Of dropout: its masks depend on seed and epoch alone, in a resumed training too.
        torch.manual_seed(generator(self._seed, "dropout", epoch).initial_seed())
        total, seen = torch.zeros((), device=self._device), 0
        for batch in self._batches(epoch):
            total += self._step(batch) * len(batch)
            seen += len(batch)
            hook.after_step()
        hook.after_epoch()
        result.epochs_run = epoch + 1
        result.images_forward += seen + hook.images_forward
        result.images_backward += seen + hook.images_backward
        result.passes_training += hook.passes
        hook.images_forward = hook.images_backward = hook.passes = 0
        return float(total) / seen

    def _batches(self, epoch: int) -> Iterator[Images | BegunBatch]:
        """The batches of an epoch, begun where somebody keeps how far they came before."""
        hook, images, recipe = self._hook, self._split.train, self._recipe
        if recipe.mixes:
            rng, classes = generator(self._seed, "mix", epoch), len(self._dataset.classes)
            batches = epoch_batches(images, recipe, self._seed, epoch, hook.excluded)
            return (mixed(batch, recipe, classes, rng) for batch in batches)
        prefixes = self._passing()
        if prefixes is None or not hook.leaves_batches_alone:
            return epoch_batches(images, recipe, self._seed, epoch, hook.excluded)
        return begun_epoch(
            prefixes, self._dataset, images, recipe, self._seed, epoch, self._advance
        )

    def _passing(self) -> Prefixes | None:
        """The prefixes for a pass that begins now."""
        if self._prefixes is not None and not self._hook.does_nothing:
            self._prefixes.look_again()
        return self._prefixes

    @torch.no_grad()
    def _advance(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Take a training batch from one cut to another, below everything that is trained."""
        with autocast(self._recipe, self._device):
            return self._classifier.advance(x, start, stop)

    def _make(self, change: Change) -> None:
        """Set the strengths, and scale the learning rate now and in the rest of its schedule."""
        self._classifier.attachment.set_strengths(dict(change.placement.items()))
        factor = change.lr / self._lr
        for group in self._optimiser.param_groups:
            group["lr"] *= factor
        self._schedule.base_lrs = [base * factor for base in self._schedule.base_lrs]
        self._lr = change.lr

    def _step(self, batch: Images | BegunBatch) -> Tensor:
        """One step of the optimiser; returns the batch's mean loss."""
        if isinstance(batch, Images):
            self._hook.before_step(batch)
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._backward(batch)
        if self._recipe.clip_norm is not None:
            self._scaler.unscale_(self._optimiser)
            tensors = [t for group in self._optimiser.param_groups for t in group["params"]]
            clip_grad_norm_(tensors, self._recipe.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return loss

    def _backward(self, batch: Images | BegunBatch) -> Tensor:
        """Add the batch's gradient to the parameters; returns its mean loss."""
        if isinstance(batch, BegunBatch):
            self._result.passes_training += 1
            loss = self._loss(batch)
            self._scaler.scale(loss).backward()
            return loss.detach()
        total = torch.zeros((), device=self._device)
        own, weight = self._distributed.share(batch)
        indices = torch.arange(len(own), device=own.labels.device)
        for index in indices.tensor_split(self._micro_batches):
            if len(index):
                self._result.passes_training += self._distributed.size
                part = own if self._micro_batches == 1 else own.subset(index)
                loss = self._loss(part, through=self._model) * (weight * len(index) / len(own))
                self._scaler.scale(loss).backward()
                total += loss.detach()
        return self._distributed.mean(total)

    def _loss(
        self,
        batch: Images | BegunBatch,
        parameters: Mapping[str, Tensor] | None = None,
        *,
        counts: Tensor | None = None,
        through: nn.Module | None = None,
    ) -> Tensor:
        """Mean loss of a batch, with its graph, through the classifier or a wrapper of it.

        For `counts` see `harness.insertion.hooks.Loss`.
        """
        begun = (
            (normalised(batch.pixels, self._dataset),) if isinstance(batch, Images) else batch.begun
        )
        with autocast(self._recipe, self._device):
            logits = (
                (self._classifier if through is None else through)(*begun)
                if parameters is None
                else functional_call(self._classifier, dict(parameters), begun)
            )
        shift = self._logit_shift if counts is None else self._shift(counts.to(self._device))
        return cross_entropy(
            logits.float() + shift, batch.labels, label_smoothing=self._recipe.label_smoothing
        )

    def _shift(self, counts: Tensor) -> Tensor:
        """What the loss adds to the logits `[classes]` for a prior of these counts."""
        if self._recipe.loss != "logit_adjusted":
            return torch.zeros(len(counts), device=self._device)
        return logit_adjustment(counts, self._recipe.tau)

    def _inner_problem(self, parameters: Mapping[str, nn.Parameter]) -> InnerProblem:
        """What a method's hook sees of this training."""
        images, recipe = self._split.train, self._recipe
        return InnerProblem(
            parameters=parameters,
            optimiser=self._optimiser,
            images=images,
            classes=len(self._dataset.classes),
            loss=self._loss,
            batch=lambda index, rng: images.augmented(index, recipe, rng),
            recipe=recipe,
            seed=self._seed,
            mean=self._distributed.mean,
        )

    def _score(
        self, epoch: int, train_loss: float, log: Callable[[Row], None], *, is_last: bool
    ) -> bool:
        """Score the selection split, log the epoch, and note whether it is the one to be tested.

        False, and nothing is logged, where the scores are not finite.
        """
        result = self._result
        row: Row = {
            "epoch": epoch,
            "lr": self._optimiser.param_groups[0]["lr"],
            "train_loss": train_loss,
        }
        if self._recipe.score_epochs == "last" and not is_last:
            result.history.append(row)
            log(row)
            return True
        scores = self._evaluated(self._split.select, "select")
        result.images_forward += len(self._split.select)
        result.images_selection += len(self._split.select)
        result.passes_selection += passes_over(self._split.select)
        if scores is None:
            return False
        result.history.append(row)
        row["select"] = scores.model_dump(mode="json", exclude=set(PER_IMAGE))
        log(row)
        better = result.select is None or scores.class_mean > result.select.class_mean
        if self._recipe.epoch_rule == "last" or better:
            result.select, result.tested_epoch = scores, epoch
            if self._recipe.epoch_rule == "best":
                state = self._classifier.state_dict()
                self._best = {k: v.detach().clone() for k, v in state.items()}
        return True

    def _evaluated(self, images: ImageSet, part: str) -> SplitMetrics | None:
        return evaluate(
            self._classifier,
            self._dataset,
            images,
            evaluated_in(self._recipe),
            self._distributed,
            self._passing(),
            part,
        )

    def _test(self) -> bool:
        """Score the test split with the weights of the epoch to be tested; False: not finite."""
        if self._best is not None:
            self._classifier.load_state_dict(self._best)
        if self._split.test is self._split.select:
            self._result.test = self._result.select
            return True
        test = self._split.test
        self._result.test = self._evaluated(test, "test")
        self._result.images_forward += len(test)
        self._result.images_test += len(test)
        self._result.passes_test += passes_over(test)
        return self._result.test is not None


def logit_adjustment(counts: Tensor, tau: float) -> Tensor:
    """`tau * log(prior)` of the training classes `[classes]`, added to logits in training only."""
    return tau * (counts / counts.sum()).log()


def _scores(result: Trained) -> list[float]:
    """Selection accuracy (class mean) after every epoch."""
    return [row["select"]["class_mean"] for row in result.history]


def stalled(scores: list[float]) -> bool:
    """The paper's early stop: the last epochs gained less than the threshold on all before."""
    before, recent = scores[:-EARLY_STOP_EPOCHS], scores[-EARLY_STOP_EPOCHS:]
    return bool(before) and max(recent) - max(before) < EARLY_STOP_GAIN
