"""From a request to a resolved spec, and from a spec to a record: the runner.

Owns: joining method, backbone, data and recipe, and what one worker keeps between trials. Must not
know: studies, searches, engines.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
import resource
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import __version__
from harness.backbones import dims, input_size, load_backbone, weights_sha256
from harness.blocks import Backbone
from harness.clock import Stopwatch
from harness.data import Dataset, ImageSet, Split, normalised, one_of, split
from harness.errors import NotSavedError, UserError, unknown
from harness.heads import make_head
from harness.insertion import PeftMethod, get_method
from harness.pack import OnBad
from harness.packed import is_on_disk, load_packed, pack_of
from harness.registry import DATASETS
from harness.runs import Counted
from harness.spec import (
    CHANGEABLE,
    SEMANTICS,
    BackboneSpec,
    Change,
    DataSpec,
    Placement,
    TrialRequest,
    TrialSpec,
    parse_depth,
    validated,
)
from harness.storage import check_storage
from harness.store import Claim, Cost, Status, Store, TrialRecord
from harness.train import ALONE, Classifier, Trained, class_means, embed, flops_per_image, train
from harness.world import World

OOM_PARTS = 4
"""Parts of a batch, one after the other, after it did not fit into the device's memory whole."""
PROBE_BATCHES = 6
"""Enough for a method's own steps between the trainer's to show in an estimate."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how fast a trial runs; never part of its identity."""

    device: str = "cpu"
    """`cuda` is shared out: a worker gets one of the machine's GPUs."""
    keep_weights: bool = False
    """Save the trained tensors (PEFT and head) beside the record."""
    keep_features: bool = False
    """Save the test images' features beside the record."""
    keep_checkpoints: bool = False
    """Leave the last one of a trial that was stopped, so that it can go on."""
    weights: Path | None = None
    """File of the backbone's weights, where its spec says `file`."""
    data_root: str | None = None
    """Folder of the files of a dataset on disk."""
    packs: str = "runs/packs"
    """Folder where such datasets are packed, and where workers open them."""
    on_bad_image: OnBad = "stop"
    """What to do about an image that cannot be read."""

    def on(self, number: int) -> Runtime:
        """The same on the GPU of worker `number`."""
        if self.device != "cuda":
            return self
        return self.at(f"cuda:{number % torch.cuda.device_count()}")

    def at(self, device: str) -> Runtime:
        """The same on another device."""
        return replace(self, device=device)


def default_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve(request: TrialRequest, runtime: Runtime) -> TrialSpec:
    """Fill in every default and turn positions and depth into sites.

    Raises:
        UserError: a name, option, position or depth that does not exist, or fits nothing.
    """
    check_storage(request.backbone.frozen)
    method = get_method(request.method)
    options = method.parse_options(request.options)
    backbone = request.backbone.model_copy(
        update={"sha256": weights_sha256(request.backbone, runtime.weights)}
    )
    placement = _placement(request, method, options)
    # A combination whose part gets no site says so here, before anything runs.
    method.expected_params(dims(request.backbone), placement, options)
    dataset = DATASETS.get(request.data.name)
    data = validated(dataset.Options, request.data.options, source=f"data {request.data.name}")
    sha256 = None
    if is_on_disk(request.data.name):
        size = input_size(request.backbone)
        place = (runtime.data_root, runtime.packs, runtime.on_bad_image)
        info = pack_of(request.data.name, data.model_dump_json(), size, *place)
        if info.channels != request.backbone.in_chans:
            raise UserError(
                f"Images of {request.data.name} have {info.channels} bands, and the backbone takes "
                f"{request.backbone.in_chans}: give --set backbone.in_chans={info.channels}, or "
                "choose other bands with data.options.bands."
            )
        sha256 = info.sha256
    recipe = request.recipe
    if recipe.precision == "auto":
        on_gpu = torch.device(runtime.device).type == "cuda"
        recipe = recipe.model_copy(update={"precision": "bf16" if on_gpu else "fp32"})
    return TrialSpec(
        method=request.method,
        options=options.model_dump(mode="json"),
        placement=placement,
        backbone=backbone,
        data=request.data.model_copy(
            update={"options": data.model_dump(mode="json"), "sha256": sha256}
        ),
        recipe=recipe,
        changes=tuple(_changes(request, placement, method, options)),
        seed=request.seed,
    )


def _changes(
    request: TrialRequest, placement: Placement, method: PeftMethod, options: Any
) -> Iterator[Change]:
    if request.changes and method.wraps:
        raise UserError(f"changes: {request.method} learns its strengths; they cannot be set.")
    times = [change.after for change in request.changes]
    if times != sorted(set(times)) or any(time >= request.recipe.epochs for time in times):
        raise UserError(
            f"changes: write rising numbers of epochs below {request.recipe.epochs}, not {times}."
        )
    for change in request.changes:
        for field in change.values:
            if field not in CHANGEABLE:
                raise unknown("field in changes:", field, CHANGEABLE)
        request = request.with_values(change.values, source=f"changes after {change.after}")
        changed = _placement(request, method, options)
        if changed.root.keys() != placement.root.keys():
            raise UserError(f"changes after {change.after}: the sites must stay the same.")
        yield Change(after=change.after, placement=changed, lr=request.recipe.lr)


def _placement(request: TrialRequest, method: PeftMethod, options: Any) -> Placement:
    sizes, name = dims(request.backbone), request.backbone.name
    if method.adds_tokens and not sizes.is_sequence:
        raise UserError(
            f"Method {request.method!r} adds tokens, and {name!r} has no sequence that runs "
            "through all its blocks: use it on a plain ViT."
        )
    allowed = method.positions_on(sizes, options)
    if not allowed and method.positions_with(options):
        raise UserError(
            f"Method {request.method!r} goes to {', '.join(method.positions_with(options))}, and "
            f"{name!r} has {', '.join(sizes.positions)} only."
        )
    if not method.additive and request.alpha != 1:
        raise UserError(f"Method {request.method!r} has no alpha: leave it at 1.")
    if not allowed:
        if request.positions is None and request.depth == "all" and request.placement is None:
            return Placement({})
        raise UserError(f"Method {request.method!r} has no sites: leave out positions and depth.")
    num_blocks = sizes.num_blocks
    placement = request.placement
    if placement is None:
        positions = request.positions or method.default_positions_on(sizes, options)
        if not positions:
            raise UserError(
                f"Backbone {name!r} has none of the default positions of {request.method!r}: name "
                f"some of {', '.join(allowed)}."
            )
        placement = Placement.of(positions, parse_depth(request.depth, num_blocks), request.alpha)
    for site, _ in placement.items():
        if site.position not in allowed:
            raise unknown(f"position for {request.method}:", site.position, allowed)
        if site.block >= num_blocks:
            raise UserError(f"Site {site} lies beyond the {num_blocks} blocks of the backbone.")
    return placement


@dataclass(frozen=True)
class _Prepared:
    """What trials on one backbone, dataset and seed share within a worker."""

    backbone: Backbone
    dataset: Dataset
    split: Split
    class_means: Tensor


@functools.lru_cache(maxsize=2)
def _backbone(spec_json: str, device: str, weights: Path | None) -> Backbone:
    spec = BackboneSpec.model_validate_json(spec_json)
    return load_backbone(spec, torch.device(device), weights)


@functools.lru_cache(maxsize=2)
def _dataset(spec_json: str, size: int | None, packs: str) -> Dataset:
    """`size` of the views of images on disk; None for data that is drawn."""
    spec = DataSpec.model_validate_json(spec_json)
    if size is not None:
        return load_packed(spec, size, packs)
    factory = DATASETS.get(spec.name)
    loaded: Dataset = factory.load(factory.Options.model_validate(spec.options))
    return loaded


@functools.lru_cache(maxsize=4)
def _prepared(
    backbone_json: str, data_json: str, seed: int, device: str, packs: str, weights: Path | None
) -> _Prepared:
    backbone = _backbone(backbone_json, device, weights)
    data = DataSpec.model_validate_json(data_json)
    size = None
    if is_on_disk(data.name):
        size = input_size(BackboneSpec.model_validate_json(backbone_json))
    dataset = _dataset(data_json, size, packs)
    parts = split(dataset, data, seed).to(torch.device(device))
    return _Prepared(backbone, dataset, parts, class_means(backbone, dataset, parts.train))


GoesOn = Callable[[int, dict[str, float]], bool]
"""Told a trial's epochs so far and their last selection scores, says whether it shall go on."""


def run_trial(
    spec: TrialSpec,
    runtime: Runtime,
    store: Store,
    goes_on: GoesOn | None = None,
    world: World = ALONE,
) -> TrialRecord | None:
    """Run a trial and publish its record; a finished one is returned as it is.

    An exception in training becomes a `FAILED` record; one in the store is not caught, because
    results that cannot be saved must stop everything. One that runs out of device memory, alone in
    its `world`, is tried once more, its batches in `OOM_PARTS` parts. With `goes_on` the trial is
    watched: it keeps a checkpoint, continues from one that a crashed process left, and is `PRUNED`
    at the first no. None: another process is running it.

    Raises:
        UserError: the backbone or the data cannot be had as asked for.
    """
    with store.claim(spec) as claim:
        if claim is None:
            return store.record(spec.trial_id)
        watch = Stopwatch(torch.device(runtime.device))
        record = None
        try:
            with suppress(*([torch.OutOfMemoryError] if world.size == 1 else [])):
                record = _run(spec, runtime, claim, goes_on, world, parts=1)
            if record is None:  # the error, whose traceback held the tensors, is gone by now
                claim.restart()
                record = _run(spec, runtime, claim, goes_on, world, parts=OOM_PARTS)
        except (UserError, NotSavedError):
            raise  # wrong for this trial and for those that follow
        except Exception:
            record = _record(spec, runtime, "FAILED", watch, error=traceback.format_exc())
        is_stopped = record.status == "PRUNED"
        claim.publish(record, keep_checkpoint=runtime.keep_checkpoints and is_stopped)
        return record


def follow_trial(spec: TrialSpec, runtime: Runtime, world: World) -> None:
    """Train along with the process that runs the trial, and keep nothing."""
    _fix_arithmetic()
    with _attached(spec, runtime) as (classifier, prepared):
        train(
            classifier,
            prepared.dataset,
            prepared.split,
            spec.recipe,
            seed=spec.seed,
            log=lambda row: None,
            changes=spec.changes,
            world=world,
        )


def record_crash(spec: TrialSpec, runtime: Runtime, store: Store, error: str) -> None:
    """Publish a `FAILED` record for a trial whose worker died before it could."""
    with store.claim(spec) as claim:
        if claim is not None:
            watch = Stopwatch(torch.device(runtime.device))
            claim.publish(_record(spec, runtime, "FAILED", watch, error=error))


def probe_seconds(spec: TrialSpec, runtime: Runtime) -> float:
    """Estimate a trial's device seconds from a few batches of it, after as many to warm up.

    Of all its images the same share is trained on and scored, as often as in one of its epochs.
    """
    _fix_arithmetic()
    whole, epochs = _prepare(spec, runtime).split, spec.recipe.epochs
    share = min(1.0, PROBE_BATCHES * spec.recipe.batch_size / len(whole.train))
    select = _some(whole.select, share)
    small = replace(
        whole,
        train=_some(whole.train, share),
        select=select,
        test=select if whole.test is whole.select else _some(whole.test, share / epochs),
    )
    recipe = spec.recipe.model_copy(update={"epochs": 1})
    with _attached(spec, runtime) as (classifier, prepared):
        seconds = 0.0
        for _ in range(2):
            watch = Stopwatch(torch.device(runtime.device))
            train(classifier, prepared.dataset, small, recipe, seed=spec.seed, log=lambda row: None)
            _, seconds = watch.spent
    return seconds * epochs / share


def _some(images: ImageSet, share: float) -> ImageSet:
    index = torch.arange(math.ceil(share * len(images)), device=images.labels.device)
    return images.subset(index)


def count_params(spec: TrialSpec) -> Counted:
    """The trainable parameters of a trial by its method's formula; nothing is loaded."""
    method, sizes = get_method(spec.method), dims(spec.backbone)
    options = method.parse_options(spec.options)
    return Counted(method.expected_params(sizes, spec.placement, options), sizes.width)


def full_run_flops(spec: TrialSpec, runtime: Runtime) -> int:
    """What a trial costs if it runs to its end without steps of the method's own, in FLOPs."""
    _fix_arithmetic()
    with _attached(spec, runtime) as (classifier, prepared):
        parts = prepared.split
        sample = normalised(one_of(parts.train), prepared.dataset)
        forward, backward = flops_per_image(classifier, sample)
    trained = spec.recipe.epochs * len(parts.train)
    scored = spec.recipe.epochs * len(parts.select)
    tested = 0 if parts.test is parts.select else len(parts.test)
    return forward * (trained + scored + tested) + backward * trained


def _prepare(spec: TrialSpec, runtime: Runtime) -> _Prepared:
    return _prepared(
        spec.backbone.model_dump_json(),
        spec.data.model_dump_json(),
        spec.seed,
        runtime.device,
        runtime.packs,
        runtime.weights,
    )


@contextmanager
def _attached(spec: TrialSpec, runtime: Runtime) -> Iterator[tuple[Classifier, _Prepared]]:
    """The trial's classifier; the shared backbone is as it was afterwards."""
    prepared = _prepare(spec, runtime)
    method = get_method(spec.method)
    options = method.parse_options(spec.options)
    attachment = method.attach(prepared.backbone, spec.placement, options, seed=spec.seed)
    try:
        head = make_head(spec.recipe, prepared.class_means, spec.seed)
        yield Classifier(prepared.backbone, attachment, head), prepared
    finally:
        attachment.detach()


def _run(
    spec: TrialSpec,
    runtime: Runtime,
    claim: Claim,
    goes_on: GoesOn | None,
    world: World,
    *,
    parts: int,
) -> TrialRecord:
    _fix_arithmetic()
    device = torch.device(runtime.device)
    _prepare(spec, runtime)  # shared by the worker's trials, so not part of this one's cost
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch(device)
    with _attached(spec, runtime) as (classifier, prepared):
        sample = normalised(one_of(prepared.split.train), prepared.dataset)
        forward, backward = flops_per_image(classifier, sample)
        result = train(
            classifier,
            prepared.dataset,
            prepared.split,
            spec.recipe,
            seed=spec.seed,
            log=claim.log,
            changes=spec.changes,
            goes_on=None
            if goes_on is None
            else lambda row: goes_on(row["epoch"] + 1, _scores(row)),
            checkpoint=None if goes_on is None else claim.checkpoint,
            parts=parts,
            world=world,
        )
        if runtime.keep_features and result.test is not None:
            tested = prepared.split.test
            claim.write_features(
                embed(classifier, prepared.dataset, tested).cpu().numpy(),
                tested.labels.cpu().numpy(),
                prepared.dataset.groups,
            )
        learned = None if result.diverged else classifier.attachment.learned()
        weights = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
    claim.write_trajectory(result.trajectory)
    if runtime.keep_weights and not result.pruned:
        claim.write_weights(weights)
    return _record(
        spec,
        runtime,
        "DIVERGED" if result.diverged else "PRUNED" if result.pruned else "COMPLETE",
        watch,
        result=result,
        parts=parts,
        processes=world.size,
        flops=forward * result.images_forward + backward * result.images_backward,
        inference_flops=forward,
        trainable_params=sum(p.numel() for p in classifier.attachment.parameters()),
        head_params=sum(p.numel() for p in classifier.head.parameters()),
        num_classes=len(prepared.dataset.classes),
        learned=learned,
    )


def _scores(row: dict[str, Any]) -> dict[str, float]:
    """The overall scores in a row of the history."""
    return {name: score for name, score in row["select"].items() if isinstance(score, float)}


def _record(
    spec: TrialSpec,
    runtime: Runtime,
    status: Status,
    watch: Stopwatch,
    *,
    result: Trained | None = None,
    parts: int = 1,
    processes: int = 1,
    flops: int = 0,
    inference_flops: int = 0,
    trainable_params: int = 0,
    head_params: int = 0,
    num_classes: int = 1,
    learned: Placement | None = None,
    error: str | None = None,
) -> TrialRecord:
    result = result or Trained()
    device = torch.device(runtime.device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    wall_s, device_s = watch.spent
    method = get_method(spec.method)
    options = method.parse_options(spec.options)
    return TrialRecord(
        trial_id=spec.trial_id,
        spec=spec,
        status=status,
        select=result.select,
        test=result.test,
        num_classes=num_classes,
        epochs_run=result.epochs_run,
        tested_epoch=result.tested_epoch,
        expected_params=method.expected_params(dims(spec.backbone), spec.placement, options),
        trainable_params=trainable_params,
        head_params=head_params,
        learned=learned,
        parts=parts,
        cost=Cost(
            wall_s=wall_s + result.earlier[0],
            device_s=(device_s + result.earlier[1]) * processes,
            images_forward=result.images_forward,
            images_backward=result.images_backward,
            flops=flops,
            inference_flops=inference_flops,
            peak_memory_mb=peak,
        ),
        provenance=provenance(runtime.device),
        error=error,
    )


def _fix_arithmetic() -> None:
    """One thread per CPU trial, whatever runs beside it, so that sums are taken in one order."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # It would also write to all new memory, for code that reads what it has not written; 5 % of a
    # trial on a CPU, and not one number changes.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@functools.cache
def provenance(device: str) -> dict[str, str]:
    """Versions, device and the state of the harness's own source (not of the user's folder)."""
    versions = {n: importlib.metadata.version(n) for n in ("torch", "timm", "numpy")}
    is_gpu = torch.device(device).type == "cuda"
    return {
        "harness": __version__,
        "semantics": str(SEMANTICS),
        "git": _git_state(Path(__file__).parent),
        "python": platform.python_version(),
        **versions,
        "device": torch.cuda.get_device_name(device) if is_gpu else _cpu_name(),
        "platform": platform.platform(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git_state(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return run.stdout.strip()
