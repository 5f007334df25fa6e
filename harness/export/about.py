"""What travels with every export: classes, how images become inputs, the head, and the trial.

Owns: `adapter.json`, and what of it timm's `config.json` repeats. Must not know: tensors, how an
export is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness.data.contract import is_drawn
from harness.data.copies import eval_side
from harness.data.dataset import Dataset, one_of
from harness.data.decode import Scaling
from harness.data.pack_format import pack_folder, read_info
from harness.errors import UserError
from harness.model.backbones import input_size
from harness.runner.prepare import dataset_of
from harness.spec import Frozen, Placement, TrialSpec
from harness.store.checked import fitting
from harness.store.records import TrialRecord
from harness.store.store import Store

NAME = "adapter.json"


class Normalisation(Frozen):
    """From an image to what the backbone takes: as the trial's test images were treated."""

    size: int
    """Height and width in pixels of an input."""
    resize: int
    """What the short side of an image is reduced to before the centre is cut out; `size` where the
    data are drawn, whose images are tested as they are."""
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    bands: tuple[int, ...] | None = None
    """Bands of a file, counted from 0; None: RGB."""
    scaling: Scaling | None = None
    """Of bands that are not 8 bits wide."""


class Head(Frozen):
    """How features become logits."""

    type: Literal["cosine", "linear"]
    scale: float | None
    """Factor of the cosine; None of a linear head."""


class About(Frozen):
    """One trained classifier."""

    trial_id: str
    spec: TrialSpec
    learned: Placement | None
    """Strengths that the method itself found."""
    classes: tuple[str, ...]
    """In the order of the logits."""
    normalisation: Normalisation
    head: Head
    test: dict[str, float]
    """Accuracies of the record on its test images, percent."""
    listed: str | None = None
    """Hash of which images on disk were split how (`pack.listed_hash`); None where they are drawn,
    and in exports of versions that had none."""

    @property
    def shown(self) -> str:
        """The test accuracies in words."""
        words = {"micro": "of all images", "class_mean": "mean over classes"}
        return ", ".join(f"{self.test[name]:.2f} % ({words[name]})" for name in words)


def about(record: TrialRecord, store: Store) -> About:
    """What is known of a complete trial's classifier.

    Raises:
        UserError: it is not complete, or the images that it was trained on are not packed here.
    """
    if record.status != "COMPLETE" or record.test is None:
        raise UserError(f"Trial {record.trial_id} is {record.status}: there is nothing to export.")
    spec, packs = record.spec, store.root.resolve() / "packs"
    size, bands, scaling, listed = input_size(spec.backbone), None, None, None
    is_on_disk = not is_drawn(spec.data.name)
    if is_on_disk:
        assert spec.data.sha256 is not None
        info = read_info(pack_folder(packs, spec.data.name, size, spec.data.sha256))
        bands, scaling, listed = info.bands, info.scaling, info.listed
    dataset = dataset_of(spec, str(packs))
    size = size if is_on_disk else _drawn_size(dataset)
    return About(
        trial_id=record.trial_id,
        spec=spec,
        learned=record.learned,
        classes=dataset.classes,
        normalisation=Normalisation(
            size=size,
            resize=eval_side(size) if is_on_disk else size,
            mean=dataset.mean,
            std=dataset.std,
            bands=bands,
            scaling=scaling,
        ),
        head=head_of(spec),
        test={
            "micro": 100 * record.test.micro,
            "class_mean": 100 * record.test.class_mean,
        },
        listed=listed,
    )


def _drawn_size(dataset: Dataset) -> int:
    """Side in pixels of drawn images, which may be another than the backbone's own."""
    return one_of(dataset.test).shape[-1]


def read_about(folder: Path) -> About:
    """What an exported folder says of itself.

    Raises:
        UserError: it is no folder of an export that can be used, of another version, or what it
            says does not go together, as where it was edited.
    """
    try:
        text = (folder / NAME).read_bytes()
    except OSError as error:
        raise UserError(
            f"{folder} is no exported classifier: it has no {NAME}; write one with "
            "`harness export RUN --best FOLDER`."
        ) from error
    try:
        known = About.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{folder / NAME} is damaged or was written by another version: export it again."
        ) from error
    for field in _contradictions(known):
        raise UserError(
            f"{folder / NAME} is not used: its {field} is not that of trial {known.trial_id}; "
            "export it again."
        )
    return known


def _contradictions(known: About) -> Iterator[str]:
    """Fields that cannot be of the trial; an edited one would change predictions silently."""
    spec, view = known.spec, known.normalisation
    if fitting(known.trial_id, spec, None) is None:
        yield "spec"
        return
    if len(set(known.classes)) != len(known.classes) or not known.classes:
        yield "list of classes"
    is_on_disk = spec.data.sha256 is not None  # only images on disk have a hash
    if view.size != input_size(spec.backbone) and (
        is_on_disk or view.size != _drawn_size(dataset_of(spec, ""))
    ):
        yield "normalisation.size"
    if view.resize != (eval_side(view.size) if is_on_disk else view.size):
        yield "normalisation.resize"
    channels = spec.backbone.in_chans
    if len(view.mean) != channels:
        yield "normalisation.mean"
    if len(view.std) != channels or min(view.std) <= 0:
        yield "normalisation.std"
    if view.bands is not None and len(view.bands) != channels:
        yield "normalisation.bands"
    if known.head != head_of(spec):
        yield "head"


def head_of(spec: TrialSpec) -> Head:
    """The head that a trial trains."""
    recipe = spec.recipe
    return Head(type=recipe.head, scale=recipe.head_scale if recipe.head == "cosine" else None)


def timm_config(known: About, architecture: str, width: int) -> dict[str, Any]:
    """`config.json` as timm's `local-dir:` models have it, with what timm does not know beside."""
    view = known.normalisation
    return {
        "architecture": architecture,
        "num_classes": len(known.classes),
        "num_features": width,
        "model_args": {"img_size": view.size},
        "pretrained_cfg": {
            "num_classes": len(known.classes),
            "input_size": [len(view.mean), view.size, view.size],
            "interpolation": "bilinear",
            "crop_pct": view.size / view.resize,
            "crop_mode": "center",
            "mean": list(view.mean),
            "std": list(view.std),
            "label_names": list(known.classes),
        },
        "harness": known.model_dump(mode="json"),
    }
