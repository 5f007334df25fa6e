"""How fast a trial trains, beside a loop by hand and peft: rounds of each in turn, in one process.

Owns: `harness bench train`. Must not know: stores, studies, searches.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from harness.bench import plain
from harness.data.dataset import Dataset, Images, Split, normalised
from harness.insertion.method import get_method
from harness.model.backbones import dims, features, input_size, load_backbone
from harness.model.heads import make_head
from harness.runner.memory import PeakMemory
from harness.runner.prepare import fix_arithmetic
from harness.spec import (
    LINEAR_POSITIONS,
    BackboneSpec,
    Placement,
    Position,
    Recipe,
    parse_depth,
)
from harness.training.arithmetic import autocast
from harness.training.classifier import Classifier
from harness.training.clock import Stopwatch
from harness.training.evaluation import flops_per_image
from harness.training.train import TrainingLoop

CLASSES = 15
SIDE = 1024
"""Of the matrices whose product says what the device can do; larger on a GPU."""


class Case(NamedTuple):
    """A method at some sites."""

    name: str
    method: str
    positions: tuple[Position, ...]
    depth: str = "all"


CASES = (
    Case("q+v", "lora", ("q", "v")),
    Case("six positions", "lora", LINEAR_POSITIONS),
    Case("mlp1", "lora", ("mlp1",)),
    Case("mlp2", "lora", ("mlp2",)),
    Case("mlp1, last:1", "lora", ("mlp1",), "last:1"),
    Case("adapter", "adapter", ("ffn",)),
    Case("adaptformer", "adaptformer", ("ffn",)),
    Case("vpt_deep", "vpt_deep", ("block",)),
    Case("bitfit", "bitfit", ("block",)),
)


class Setting(NamedTuple):
    """What is trained, on what, and how."""

    backbone: BackboneSpec
    recipe: Recipe
    device: torch.device
    batches: int
    """Of one round."""
    rounds: int


class Speed(NamedTuple):
    """One way to train one case: medians over the rounds."""

    case: str
    way: str
    backbone: str
    size: int
    batch: int
    precision: str
    images_per_s: float
    over_plain: float | None
    """Time of a step over that of the plain loop, in the same round."""
    flops_per_s: float | None
    ceiling: float
    """FLOP/s of a large matrix product in that precision, measured between the rounds."""
    memory_mib: float | None
    """Peak above what was there before the first step."""
    saved_mib: float
    """What the forward pass of a batch keeps for the backward pass, parameters aside."""


class _Way(NamedTuple):
    name: str
    epoch: Callable[[], object]
    logits: Callable[[Tensor], Tensor]
    modules: Sequence[nn.Module]
    """Whose parameters count as no memory of a pass."""


def measure(case: Case, setting: Setting, *, with_peft: bool = True) -> list[Speed]:
    """Time the harness, a plain loop and, where it can do the same, peft.

    The plain loop trains LoRA that was written by hand; of another method it trains the harness's
    own modules, so that only the loops differ. On a CPU one thread computes, and time is CPU time.

    Raises:
        UserError: the backbone is unknown, or the method does not fit it.
    """
    fix_arithmetic()
    data = _images(setting)
    ways, flops = _ways(case, setting, data)
    ways = [way for way in ways if with_peft or way.name != "peft"]
    sample = normalised(data.train.subset(_first(setting)).plain(), data)
    memory = [_memory(way.epoch, setting.device) for way in ways]  # and so they are warm
    saved = [_saved(way, sample, setting) for way in ways]
    times: list[list[float]] = [[] for _ in ways]
    ceilings = []
    for number in range(setting.rounds):
        ceilings.append(ceiling(setting))
        for place in range(len(ways)):  # another one begins in every round
            which = (place + number) % len(ways)
            times[which].append(_seconds(ways[which].epoch, setting.device))
    images, most = len(data.train), statistics.median(ceilings)
    size = input_size(setting.backbone)
    names = [way.name for way in ways]
    base = times[names.index("plain")]
    return [
        Speed(
            case=case.name,
            way=way.name,
            backbone=setting.backbone.name,
            size=size,
            batch=setting.recipe.batch_size,
            precision=setting.recipe.precision,
            images_per_s=images / statistics.median(spent),
            over_plain=statistics.median(a / b for a, b in zip(spent, base, strict=True)),
            flops_per_s=images * flops / statistics.median(spent) if way.name != "peft" else None,
            ceiling=most,
            memory_mib=kept,
            saved_mib=bytes_ / 2**20,
        )
        for way, spent, kept, bytes_ in zip(ways, times, memory, saved, strict=True)
    ]


def ceiling(setting: Setting) -> float:
    """FLOP/s of a product of two large square matrices, in the precision of the training."""
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    side = SIDE if setting.device.type == "cpu" else 8 * SIDE
    dtype = types.get(setting.recipe.precision, torch.float32)
    matrix = torch.ones(side, side, dtype=dtype, device=setting.device)
    torch.mm(matrix, matrix)
    best = min(_seconds(lambda: torch.mm(matrix, matrix), setting.device) for _ in range(3))
    return float(2 * side**3 / best)


def _images(setting: Setting) -> Dataset:
    size, rng = input_size(setting.backbone), torch.Generator().manual_seed(0)
    count = setting.batches * setting.recipe.batch_size
    shape = (count, setting.backbone.in_chans, size, size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
    made = Images(pixels=pixels, labels=torch.arange(count) % CLASSES).to(setting.device)
    classes = tuple(str(number) for number in range(CLASSES))
    values, groups = (0.5,) * setting.backbone.in_chans, {"all": tuple(range(CLASSES))}
    return Dataset(train=made, test=made, classes=classes, groups=groups, mean=values, std=values)


def _first(setting: Setting) -> Tensor:
    return torch.arange(setting.recipe.batch_size, device=setting.device)


def _ways(case: Case, setting: Setting, data: Dataset) -> tuple[list[_Way], int]:
    """The ways, and the FLOPs of a training step for one image by the harness's count."""
    spec, recipe, device = setting.backbone, setting.recipe, setting.device
    blocks = parse_depth(case.depth, dims(spec).num_blocks)
    alpha = plain.ALPHA if case.method == "lora" else 1.0
    placement = Placement.of(case.positions, blocks, alpha)
    assert isinstance(data.train, Images)
    images, labels = data.train, data.train.labels
    counts = torch.bincount(labels, minlength=CLASSES)
    means = torch.nn.functional.normalize(
        torch.randn(CLASSES, dims(spec).width, generator=torch.Generator().manual_seed(0)), dim=1
    ).to(device)
    method = get_method(case.method)
    options = method.parse_options({"rank": plain.RANK} if case.method == "lora" else {})

    def classifier() -> Classifier:
        model = load_backbone(spec, device)
        attachment = method.attach(model, placement, options, seed=0)
        return Classifier(model, attachment, make_head(recipe, means, 0))

    def loop(name: str, logits: Callable[[Tensor], Tensor], *modules: nn.Module) -> _Way:
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        half = torch.full((1, spec.in_chans, 1, 1), 127.5, device=device)
        return _Way(
            name,
            lambda: plain.epoch(logits, trained, images, counts, recipe, mean=half, std=half),
            logits,
            modules,
        )

    own = classifier()
    one = images.subset(_first(setting)[:1])
    split = Split(train=images, select=one, test=one, train_counts=counts)

    def ours() -> None:
        TrainingLoop(own, data, split, recipe, seed=0).run(lambda row: None)

    ways = [_Way("harness", ours, own, [own, own.attachment.model])]
    forward, backward = flops_per_image(own, normalised(one.plain(), data))
    if case.method != "lora":
        other = classifier()
        plain_loop = loop("plain", other, other, other.attachment.model)
        return [*ways, plain_loop], forward + backward
    model = load_backbone(spec, device)
    wrapped = {"plain": plain.by_hand(model, placement), "peft": plain.by_peft(model, placement)}
    for name, changed in wrapped.items():
        if changed is not None:
            head = make_head(recipe, means, 0)
            ways.append(loop(name, _logits(changed, head), changed, head))
    return ways, forward + backward


def _logits(model: nn.Module, head: nn.Module) -> Callable[[Tensor], Tensor]:
    def logits(x: Tensor) -> Tensor:
        scores: Tensor = head(features(model, x))
        return scores

    return logits


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds on a GPU, whose work is waited for; else CPU seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    watch = Stopwatch(device)
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return watch.spent[1]


def _memory(run: Callable[[], object], device: torch.device) -> float | None:
    peak = PeakMemory(device)
    before = peak.mib
    run()
    after = peak.mib
    return None if before is None or after is None else max(0.0, after - before)


def _saved(way: _Way, x: Tensor, setting: Setting) -> int:
    """Bytes of all that autograd keeps of a forward pass, each storage once."""
    own = {p.untyped_storage().data_ptr() for module in way.modules for p in module.parameters()}
    found: dict[int, int] = {}
    kept = []  # or the place of one could be taken by another

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor), autocast(setting.recipe, setting.device):
        scores = way.logits(x)
    del scores
    return sum(found.values())


def table(rows: Sequence[Speed]) -> list[list[str]]:
    """A line for every case and way, the ratios of the harness's to the others' at its own."""
    lines = []
    for row in rows:
        beside = [r for r in rows if r[:1] + r[2:6] == row[:1] + row[2:6]]
        peft = next((r.images_per_s for r in beside if r.way == "peft"), None)
        share = None if row.flops_per_s is None else row.flops_per_s / row.ceiling
        lines.append(
            [
                *(row.case, row.way, f"{row.images_per_s:.1f}"),
                "" if row.over_plain is None else f"{row.over_plain:.3f}",
                "" if peft is None else f"{row.images_per_s / peft:.3f}",
                "" if share is None else f"{100 * share:.0f} %",
                "" if row.memory_mib is None else f"{row.memory_mib:.0f}",
                f"{row.saved_mib:.1f}",
            ]
        )
    return lines


HEADER = [
    *("case", "way", "images/s", "step / plain", "images / peft", "of the ceiling"),
    *("peak (MiB)", "saved (MiB)"),
]
