"""What trials on one backbone, dataset and seed share within a worker, and a model ready to train.

Owns: these caches, attaching and detaching. Must not know: training, records.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.data import unpacked
from harness.data.contract import drawn_images, is_drawn, options_of
from harness.data.dataset import Dataset, Images, Split, normalised, one_of, split
from harness.data.dev_set import for_seed
from harness.data.packed import PackedImages, load_packed
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.method import attach, get_method
from harness.model.backbones import input_size, load_backbone, refuse_images
from harness.model.blocks import Backbone, dims_of
from harness.model.cut import Cuts, cuts_of
from harness.model.heads import make_head
from harness.model.precision import held_in_bf16
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, DataSpec, TrialSpec
from harness.store.activations import bytes_of
from harness.training.arithmetic import evaluated_in, set_tf32
from harness.training.classifier import Classifier
from harness.training.evaluation import class_means


@dataclass(frozen=True)
class Prepared:
    """What trials on one backbone, dataset and seed share within a worker."""

    backbone: Backbone
    dataset: Dataset
    split: Split
    class_means: Tensor

    @functools.cached_property
    def cuts(self) -> Cuts | None:
        """Where the backbone can be cut; to be asked while nothing is attached to it."""
        return cuts_of(self.backbone, normalised(one_of(self.split.train), self.dataset))

    @functools.cached_property
    def contents(self) -> str | None:
        """A hash of the frozen weights and of the images; None where they cannot be hashed.

        The images of a pack by their places in it: the spec has the pack's own hash.
        """
        found = hashlib.sha256(repr((self.dataset.mean, self.dataset.std)).encode())
        for name, tensor in self.backbone.state_dict().items():
            if type(tensor) is not Tensor:  # quantised by a library
                return None
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(bytes_of(tensor))
        for images in (self.split.train, self.split.select, self.split.test):
            if isinstance(images, Images):
                found.update(bytes_of(images.pixels))
            elif isinstance(images, PackedImages):
                found.update(bytes_of(images.rows))
            else:
                return None
        return found.hexdigest()


@functools.lru_cache(maxsize=2)
def _backbone(spec_json: str, device: str, weights: Path | None) -> Backbone:
    spec = BackboneSpec.model_validate_json(spec_json)
    return load_backbone(spec, torch.device(device), weights)


@functools.lru_cache(maxsize=2)
def _dataset(spec_json: str, size: int | None, packs: str, trial: int) -> Dataset:
    """`size` of the crops of images on disk, in pixels; None for data that is drawn.

    `trial` is the seed that draws tail and dev set where the options leave that to the trial.
    """
    spec = DataSpec.model_validate_json(spec_json)
    if size is not None and spec.sha256 == unpacked.SHA256:
        return unpacked.stand_in(spec, size, trial)
    if size is not None:
        return load_packed(spec, size, packs, trial)
    return drawn_images(spec.name, for_seed(options_of(spec.name, spec.options), trial))


def dataset_of(spec: TrialSpec, packs: str) -> Dataset:
    """The dataset of a trial; of one on disk, its pack in the folder `packs`.

    Raises:
        UserError: the pack is not there, or is damaged.
    """
    return _dataset_of(spec.data, spec.backbone, spec.seed, packs)


def _dataset_of(data: DataSpec, backbone: BackboneSpec, seed: int, packs: str) -> Dataset:
    size = None if is_drawn(data.name) else input_size(backbone)
    # Without tails by the trial's seed, all seeds share what is loaded.
    drawn_by = seed if data.options.get("tail_seed") == "trial" else 0
    return _dataset(data.model_dump_json(), size, packs, drawn_by)


@functools.lru_cache(maxsize=4)
def _prepared(
    backbone_json: str, data_json: str, seed: int, device: str, packs: str, weights: Path | None
) -> Prepared:
    spec = BackboneSpec.model_validate_json(backbone_json)
    data = DataSpec.model_validate_json(data_json)
    dataset = _dataset_of(data, spec, seed, packs)
    if is_drawn(data.name):  # images on disk were resized for the backbone
        refuse_images(spec, data.name, *one_of(dataset.train).shape[1:])
    backbone = _backbone(backbone_json, device, weights)
    parts = split(dataset, data, seed).to(torch.device(device))
    return Prepared(backbone, dataset, parts, class_means(backbone, dataset, parts.train))


def prepare(spec: TrialSpec, runtime: Runtime) -> Prepared:
    """Load what the trial shares with others, unless this worker has it already.

    Raises:
        UserError: the backbone or the data cannot be had as asked for.
    """
    return _prepared(
        spec.backbone.model_dump_json(),
        spec.data.model_dump_json(),
        spec.seed,
        runtime.device,
        runtime.packs,
        runtime.weights,
    )


def look_again() -> None:
    """See changes in the files of datasets, as every command does when it begins.

    What is shared here is known by its content, but for made-up images, which have no hash.
    """
    if unpacked.forget():
        _prepared.cache_clear()
        _dataset.cache_clear()


@contextmanager
def attached(spec: TrialSpec, runtime: Runtime) -> Iterator[tuple[Classifier, Prepared]]:
    """The trial's classifier; afterwards the shared backbone is as it was before, or is given up.

    Raises:
        UserError: the backbone or the data cannot be had as asked for, or the method trains another
            number of values than it says.
    """
    prepared = prepare(spec, runtime)
    try:
        attachment = attach(prepared.backbone, spec)
    except BaseException:
        # Nobody can detach what was attached until then, so the next trial gets another backbone.
        _prepared.cache_clear()
        _backbone.cache_clear()
        raise
    held = held_in_bf16(prepared.backbone) if _is_all_bf16(spec) else nullcontext()
    try:
        _refuse_miscounted(spec, attachment, prepared.backbone)
        head = make_head(spec.recipe, prepared.class_means, spec.seed)
        with held:
            yield Classifier(prepared.backbone, attachment, head), prepared
    finally:
        attachment.detach()


def _refuse_miscounted(spec: TrialSpec, attachment: Attachment, backbone: Backbone) -> None:
    method = get_method(spec.method)
    options = method.parse_options(spec.options)
    expected = method.expected_params(dims_of(backbone), spec.placement, options)
    trained = sum(each.numel() for each in attachment.parameters() if each.requires_grad)
    if trained != expected:
        raise UserError(
            f"Method {spec.method!r} trains {trained:,} values, and its expected_params says "
            f"{expected:,}: one of them is wrong."
        )


def _is_all_bf16(spec: TrialSpec) -> bool:
    """Whether every pass of a trial rounds its fp32 weights to bf16."""
    recipe = spec.recipe
    computed = {recipe.precision, evaluated_in(recipe)}
    return computed == {"bf16"} and spec.backbone.frozen == "fp32"


def fix_arithmetic() -> None:
    """Deterministic algorithms, and one thread per CPU trial so that sums have one order."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    set_tf32(matmul=False, convolution=False)  # fp32 means fp32, also on a GPU
    torch.use_deterministic_algorithms(True)
    # Deterministic mode also fills all new memory, in case code reads what it has not written. That
    # takes 5 % of a trial on a CPU, and no number depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
