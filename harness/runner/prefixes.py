"""What the frozen blocks of a trial compute, kept for the trials that see the same images.

Owns: what such trials have in common (the key), at which cuts activations are kept, and what that
saves. Must not know: the format of files, training loops, methods.

A trial that adapts nothing below block b begins at b with what an earlier one left there. Files are
made of the very batches that the first of them computes, so bits are equal. A training epoch is a
pass of its own, in the order and with the crops of (seed, epoch); so are the selection and the test
split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from harness.model.cut import IMAGES, Cuts
from harness.runner.prepare import Prepared
from harness.runner.provenance import provenance
from harness.runner.runtime import Runtime
from harness.spec import TrialSpec
from harness.store.activations import KeptFolder, KeptTensors, NewTensors
from harness.training.clock import Seconds, Stopwatch
from harness.training.evaluation import eval_batch
from harness.training.prefix import Advance, Begun, ImagesFrom

NOT_OF_PASSES = {
    *("epochs", "lr", "momentum", "weight_decay", "schedule", "loss", "tau", "head", "head_scale"),
    *("head_init", "epoch_rule", "early_stop", "score_epochs", "optimiser", "warmup_epochs"),
    *("layer_decay", "clip_norm", "label_smoothing"),
}
"""Fields of a recipe that change nothing of what frozen blocks see and compute. (Epochs do so one
by one, whatever their number.)"""
NOT_OF_SCORES = NOT_OF_PASSES | {"batch_size", "augment", "crop_scale_min", "mixup", "cutmix"}
"""The same where images are seen as they are tested."""

NOTHING: Seconds = (0.0, 0.0)


def prefixes_of(spec: TrialSpec, runtime: Runtime, prepared: Prepared) -> TrialPrefixes | None:
    """What is kept for a trial, to be asked before anything is attached to the backbone.

    None: nothing, because it was not asked for, the backbone cannot be cut, or what its weights and
    the images are is not known for certain.
    """
    if runtime.cache is None or prepared.cuts is None or prepared.contents is None:
        return None
    split, cuts, cache = prepared.split, prepared.cuts, runtime.cache
    scored = len(split.test) + (len(split.select) if split.select is not split.test else 0)
    of_scores = [scored * size for size in cuts.image_bytes]
    of_epochs = [spec.recipe.epochs * len(split.train) * size for size in cuts.image_bytes]
    if cache.uses is None:  # then a trial keeps its own last cut alone
        scores = frozenset(cut for cut, size in enumerate(of_scores) if size <= cache.budget)
        epochs = frozenset(c for c in scores if of_scores[c] + of_epochs[c] <= cache.budget)
    else:
        uses = Counter[int]()
        for block, count in cache.uses:
            uses[cuts.last if block is None else block] += count
        scores = chosen_cuts(uses, of_scores, cache.budget)
        left = cache.budget - sum(of_scores[cut] for cut in scores)
        epochs = chosen_cuts(uses, of_epochs, left)
    return TrialPrefixes(
        KeptFolder(cache.folder, cache.budget),
        prepared,
        cuts,
        of_scores=(_key(spec, runtime, prepared.contents, NOT_OF_SCORES), scores),
        of_epochs=(_key(spec, runtime, prepared.contents, NOT_OF_PASSES), epochs),
        is_planned=cache.uses is not None,
        device=torch.device(runtime.device),
    )


def chosen_cuts(uses: Mapping[int, int], sizes: Sequence[int], budget: int) -> frozenset[int]:
    """The cuts to keep: those that save most forward passes per byte, as far as there is room.

    `uses` says how many trials could begin at a cut, `sizes` how many bytes each takes; a trial
    begins at the last kept one before its own.
    """
    chosen: set[int] = set()

    def saved(cuts: set[int]) -> int:
        begins = {own: max((c for c in cuts if c <= own), default=IMAGES) for own in uses}
        return sum(count * (begins[own] - IMAGES) for own, count in uses.items())

    while True:
        room = budget - sum(sizes[cut] for cut in chosen)
        gains = {
            cut: (saved(chosen | {cut}) - saved(chosen)) / sizes[cut]
            for cut in uses
            if cut not in chosen and 0 <= cut < len(sizes) and sizes[cut] <= room
        }
        best = max(gains, key=lambda cut: (gains[cut], cut), default=None)
        if best is None or gains[best] <= 0:
            return frozenset(chosen)
        chosen.add(best)


def _key(spec: TrialSpec, runtime: Runtime, contents: str, left_out: set[str]) -> dict[str, Any]:
    """All that can change a bit of a pass, but the pass itself and the cut."""
    machine = provenance(runtime.device)
    device = torch.device(runtime.device)
    return {
        "backbone": spec.backbone.model_dump(mode="json"),
        "data": spec.data.model_dump(mode="json"),
        "seed": spec.seed,
        "contents": contents,
        "recipe": spec.recipe.model_dump(mode="json", exclude=left_out),
        "eval_batch": eval_batch(device),
        "machine": {k: machine[k] for k in ("semantics", "device", "torch", "timm", "numpy")},
        "capability": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else "",
    }


class TrialPrefixes:
    """Keeps and reads what leaves the frozen blocks of one trial (`Prefixes` of the training)."""

    def __init__(
        self,
        folder: KeptFolder,
        prepared: Prepared,
        cuts: Cuts,
        *,
        of_scores: tuple[dict[str, Any], frozenset[int]],
        of_epochs: tuple[dict[str, Any], frozenset[int]],
        is_planned: bool,
        device: torch.device,
    ) -> None:
        self._folder, self._prepared, self._cuts = folder, prepared, cuts
        self._of_scores, self._of_epochs = of_scores, of_epochs
        self._is_planned, self._device = is_planned, device
        self._limit: int | None = None
        self._watch = Stopwatch(device)
        self.saved: Seconds = NOTHING

    def look_again(self) -> None:
        self._limit = None

    def begun(self, part: str, count: int, images: ImagesFrom, advance: Advance) -> Iterator[Begun]:
        if self._limit is None:
            self._limit = self._cuts.unchanged(self._prepared.backbone)
        about, chosen = self._of_epochs if part.startswith("epoch") else self._of_scores
        text = json.dumps(about, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        with ExitStack() as stack:
            at, missing = self._there(key, part, chosen)
            if missing:
                may_fill = stack.enter_context(self._folder.filling(key, part))
                at, missing = self._there(key, part, chosen)  # another may have filled it by now
                missing = missing if may_fill else []
            source = self._folder.open(key, _name(part, at)) if at > IMAGES else None
            if source is not None:
                stack.callback(source.close)
            if source is not None and len(source) != count:
                source.remove()
                source = None
            if source is None:
                at = IMAGES
            new = {cut: self._folder.new(key, _name(part, cut)) for cut in missing}
            for file in new.values():
                stack.callback(file.give_up)
            pass_ = _Pass(self, source, at, new, images, advance)
            for number in range(count):
                yield pass_.batch(number)
            pass_.publish(about)

    def _there(self, key: str, part: str, chosen: frozenset[int]) -> tuple[int, list[int]]:
        """The last cut that is there for this trial, and the chosen ones beyond it that are not.

        Without a plan nobody knows who will need those before this trial's own.
        """
        assert self._limit is not None
        names = self._folder.names(key)
        cuts = range(self._limit + 1)
        at = max((cut for cut in cuts if _name(part, cut) in names), default=IMAGES)
        missing = [cut for cut in cuts if cut > at and cut in chosen]
        return at, missing if self._is_planned else missing[-1:]

    def now(self) -> Seconds:
        """Both clocks, when all that was asked of the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._watch.spent

    def save(self, passed: Seconds, began: Seconds, ended: Seconds) -> None:
        """Count what was not computed, and take off what keeping or reading it took."""
        wall, device = self.saved
        self.saved = (
            wall + passed[0] - (ended[0] - began[0]),
            device + passed[1] - (ended[1] - began[1]),
        )

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(self._device)  # strides are kept


class _Pass:
    """One pass over a part: from a file or from images, and into new files."""

    def __init__(
        self,
        trial: TrialPrefixes,
        source: KeptTensors | None,
        at: int,
        new: Mapping[int, NewTensors],
        images: ImagesFrom,
        advance: Advance,
    ) -> None:
        self._trial, self._source, self._at, self._new = trial, source, at, new
        self._images, self._advance = images, advance
        self._batches = None if source is not None else images(0)
        self._seconds = dict.fromkeys(new, NOTHING)
        """What it takes to come from images to the cut, for all batches so far."""
        self._seen = 0

    def batch(self, number: int) -> Begun:
        """The next batch, as far as it is known or is to be kept."""
        trial, began = self._trial, self._trial.now()
        x = None if self._source is None else self._source.read()
        passed = NOTHING
        if x is not None and self._source is not None:
            x = trial.to_device(x)
            per_image: list[float] = self._source.about["seconds"]
            passed = (len(x) * per_image[0], len(x) * per_image[1])
            read = trial.now()
            trial.save(passed, began, read)
            began = read
        else:
            if self._batches is None:  # the file is damaged from here on
                self._source, self._at, self._batches = None, IMAGES, self._images(number)
            x = next(self._batches)
        at = self._at
        for cut, file in self._new.items():
            x, at = self._advance(x, at, cut), cut
            reached = trial.now()
            passed = (passed[0] + reached[0] - began[0], passed[1] + reached[1] - began[1])
            wall, device = self._seconds[cut]
            self._seconds[cut] = (wall + passed[0], device + passed[1])
            file.add(x)
            began = trial.now()
            trial.save(NOTHING, reached, began)
        self._seen += len(x)
        return Begun(x, at)

    def publish(self, about: dict[str, Any]) -> None:
        """Show the new files to others."""
        if not self._new:
            return
        began = self._trial.now()
        for cut, file in self._new.items():
            wall, device = self._seconds[cut]
            file.publish({"seconds": [wall / self._seen, device / self._seen], "of": about})
        self._trial.save(NOTHING, began, self._trial.now())


def _name(part: str, cut: int) -> str:
    return f"{part}.{cut}"
