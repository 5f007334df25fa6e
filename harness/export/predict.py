"""Classes and probabilities of images, by an exported classifier: the view, the arithmetic and the
batches are those with which a trial's test images are scored.

Owns: loading an export, which images are meant, and the CSV. Must not know: stores, runs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.catalogue.registered import refuse_unregistered
from harness.console import SILENT, Console
from harness.data.contract import OwnFormat, file_dataset, is_drawn, listing_of, options_of
from harness.data.copies import eval_copy
from harness.data.crops import plain_boxes
from harness.data.dataset import normalised
from harness.data.decode import BadImage, Pixels, Source, printable
from harness.data.decode_many import each_decoded
from harness.data.listing import BorderMask, Item, OnBad
from harness.data.pack import listed_hash, refuse_bad
from harness.data.packed import PixelStore, where_of
from harness.datasets.reading import images_below
from harness.errors import UserError, saving
from harness.export.about import About, Normalisation, read_about
from harness.insertion.method import attach
from harness.model.backbones import dims, load_backbone
from harness.model.heads import make_head
from harness.runner.prepare import fix_arithmetic
from harness.store.files import refuse_other, replacing
from harness.training.arithmetic import evaluated_in, evaluating
from harness.training.classifier import Classifier
from harness.training.evaluation import eval_batch

Split = Literal["train", "test"]
UNLABELLED = -1
WEIGHTS = "weights.safetensors"
START = "path,label,predicted,"
"""Of every file of predictions."""


class Prediction(NamedTuple):
    """What a classifier says of one image."""

    path: str
    """From the folder of images."""
    label: str | None
    """Its class, where a folder or the dataset says so."""
    predicted: str
    probability: float
    """Of the predicted class."""
    probabilities: tuple[float, ...]
    """Of every class, in their order."""


class _Images(NamedTuple):
    """Images to be classified; a label is `UNLABELLED` where none is known."""

    source: Source
    items: Sequence[Item]


class Written(NamedTuple):
    """What was written into a CSV."""

    images: int
    labelled: int
    """Images whose class is known."""
    right: int
    """Of those, how many were classified so."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A classifier ready for use."""

    about: About
    classifier: Classifier
    device: torch.device

    @torch.inference_mode()
    def probabilities(self, views: Tensor) -> Tensor:
        """Views uint8 `[n, c, size, size]` -> shares of every class `[n, classes]`."""
        with evaluating(evaluated_in(self.about.spec.recipe), self.device):
            found = self.classifier.features(normalised(views, self.about.normalisation))
        shares: Tensor = self.classifier.head(found).double().softmax(dim=1)
        return shares


def load_export(folder: Path, weights: Path | None = None, device: str = "cpu") -> Exported:
    """The classifier in a folder of `harness export --best` or `--weights`.

    `weights` is the file of the backbone's weights, where they come from one.

    Raises:
        UserError: there is none in it, it is damaged, or the backbone cannot be had as it was.
    """
    known, path = read_about(folder), folder / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{folder} has no {WEIGHTS}, as an adapter for peft has none: predict reads what "
            "`harness export RUN --best FOLDER` writes."
        )
    try:
        state = load_file(path)
    except Exception as error:  # safetensors raises a type of its own for each kind of damage
        raise UserError(f"{path} is damaged ({error}): export it again.") from error
    for name, tensor in state.items():
        if not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise UserError(
                f"{path} is damaged ({name} is not all finite numbers): export it again."
            )
    if weights is not None and known.spec.backbone.weights != "file":
        raise UserError(
            f"--weights {weights}: {known.spec.backbone.name} had its weights from no file; leave "
            "it out."
        )
    refuse_unregistered(known.spec)
    fix_arithmetic()
    there = torch.device(device)
    classifier = classifier_of(known, state, there, weights)
    return Exported(about=known, classifier=classifier, device=there)


def classifier_of(
    known: About, state: dict[str, Tensor], device: torch.device, weights: Path | None
) -> Classifier:
    """The trained classifier, on a backbone of its own.

    Raises:
        UserError: the backbone cannot be had as it was, or the tensors are not of this trial.
    """
    spec = known.spec
    backbone = load_backbone(spec.backbone, device, weights)
    attachment = attach(backbone, spec)
    start = torch.zeros(len(known.classes), dims(spec.backbone).width, device=device)
    classifier = Classifier(backbone, attachment, make_head(spec.recipe, start, spec.seed))
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"The tensors are not those of trial {known.trial_id}: export it again."
        ) from error
    return classifier.requires_grad_(False).eval()


def predictions(
    exported: Exported,
    images: Path,
    *,
    split: Split | None = None,
    on_bad_image: OnBad = "stop",
    console: Console = SILENT,
) -> Iterator[Prediction]:
    """What a classifier says of every image in a folder, at any depth, or of one image.

    With `split`, `images` is a data root of the dataset that it was trained on, and the images of
    that split are meant, in the dataset's order: every one once.

    Raises:
        UserError: there is no image, one cannot be read (and is not to be skipped), or the dataset
            is another one.
    """
    known = exported.about
    if split:
        wanted = _of_split(known, images, split, console)
    else:
        wanted = _of_folder(known, images, console)
    options = options_of(known.spec.data.name, known.spec.data.options)
    mask = options.border_mask if isinstance(options, BorderMask) else 0
    view, names = known.normalisation, known.classes

    def seen(pixels: Pixels) -> tuple[Pixels, tuple[int, int]]:
        return np.ascontiguousarray(eval_copy(pixels, view.resize)), pixels.shape[:2]

    with console.progress("Classifying", len(wanted.items), "images") as advance:
        for batch in _batches(wanted, seen, eval_batch(exported.device), on_bad_image, console):
            views = _views(batch, mask, view, exported.device)
            shares = exported.probabilities(views).cpu()
            for seen_one, row in zip(batch, shares, strict=True):
                advance("")
                label, best = seen_one.item.label, int(row.argmax())
                yield Prediction(
                    path=printable(seen_one.item.path),
                    label=None if label == UNLABELLED else names[label],
                    predicted=names[best],
                    probability=float(row[best]),
                    probabilities=tuple(row.tolist()),
                )


class _Seen(NamedTuple):
    """An image as it was read."""

    item: Item
    copy: Pixels
    """What its view is cut from."""
    original: tuple[int, int]
    """Its own height and width in pixels."""


def _batches(
    wanted: _Images,
    seen: Callable[[Pixels], tuple[Pixels, tuple[int, int]]],
    size: int,
    on_bad: OnBad,
    console: Console,
) -> Iterator[list[_Seen]]:
    """The images that can be read, so many at a time."""
    batch: list[_Seen] = []
    left_out = 0
    for item, outcome in each_decoded(wanted.source, wanted.items, seen):
        if isinstance(outcome, BadImage):
            refuse_bad(outcome, on_bad)
            left_out += 1
            continue
        batch.append(_Seen(item, *outcome))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
    if left_out:
        console.warn(f"{left_out} images cannot be read and are left out.")


def _views(batch: Sequence[_Seen], mask: int, view: Normalisation, device: torch.device) -> Tensor:
    """Views uint8 `[n, c, size, size]`, as of the trial's test images."""
    copies = [each.copy for each in batch]
    ends = np.cumsum([copy.size for copy in copies])
    where = where_of(
        ends - [copy.size for copy in copies],
        np.array([copy.shape[:2] for copy in copies]),
        np.array([each.original for each in batch]),
        mask,
        is_cut=True,
    )
    flat = torch.from_numpy(np.concatenate([copy.reshape(-1) for copy in copies])).to(device)
    store = PixelStore(flat=flat, train=where, eval=where, channels=copies[0].shape[2])
    boxes = plain_boxes(where.sizes, view.size, view.resize)
    return store.views(where, boxes, view.size, device)


def _of_folder(known: About, place: Path, console: Console) -> _Images:
    """All images below a folder, or one file; the first folder named for a class is the label."""
    if place.is_file():
        root, paths = place.parent, [place.name]
    elif place.is_dir():
        notes: list[str] = []
        root, paths = place, images_below(place, notes)
        for note in notes:
            console.warn(note)
    else:
        raise UserError(f"{printable(str(place))} is neither a folder nor an image.")
    if not paths:
        raise UserError(f"There is no image in {printable(str(place))}.")
    numbers = {name: number for number, name in enumerate(known.classes)}
    view = known.normalisation
    return _Images(
        Source(root, view.bands, view.scaling),
        [Item(path, _label(path, numbers)) for path in paths],
    )


def _label(path: str, numbers: dict[str, int]) -> int:
    folders = printable(path).split("/")[:-1]
    return next((numbers[name] for name in folders if name in numbers), UNLABELLED)


def _of_split(known: About, root: Path, split: Split, console: Console) -> _Images:
    """Images of a split of the dataset that the classifier was trained on.

    Where images were added or left out, a split that is drawn is another one, and its test images
    may have been trained on.
    """
    name, view = known.spec.data.name, known.normalisation
    if is_drawn(name):
        raise UserError(f"--split {split}: {name} is drawn, so no folder of images is split so.")
    if not root.is_dir():
        raise UserError(f"{printable(str(root))} is not a folder.")
    dataset = file_dataset(name)
    listing = listing_of(name, options_of(name, known.spec.data.options), root)
    if listing.classes != known.classes:
        raise UserError(
            f"{printable(str(root))} has other classes than trial {known.trial_id} was trained on, "
            "so its splits are others; leave out --split to classify all images in it."
        )
    if known.listed is None:
        console.warn(
            "This export does not know which images it was trained on, so that those of --split "
            f"{split} may be others than then; export it again."
        )
    elif known.listed != listed_hash(listing, known.normalisation.size):
        raise UserError(
            f"{printable(str(root))} has other images than trial {known.trial_id} was trained on, "
            "or they are split otherwise, so that some of its test images may have been trained "
            "on; leave out --split to classify all images in it."
        )
    read = dataset.read if issubclass(dataset, OwnFormat) else None
    items = listing.train if split == "train" else listing.test
    return _Images(Source(root, view.bands, view.scaling, read), items)


def _refuse_other(path: Path) -> None:
    """Whether a folder is there, or a file that is none of predictions, and would be lost."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: name a file in it.")
    refuse_other(path, "--out", "predictions", _begins_so)


def _begins_so(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(START)) == START.encode()


def write_csv(path: Path, classes: Sequence[str], found: Iterable[Prediction]) -> Written:
    """Write a row per image: path, label (empty where unknown), predicted class, its probability,
    and the probability of every class, `p_<class>`; paths are relative to the folder of images.

    Raises:
        NotSavedError: it cannot be written; what was there before stays.
        UserError: it is a folder, or a file that holds something else, such as one of the images.
    """
    _refuse_other(path)
    count = labelled = right = 0
    with replacing(path) as part:
        with saving(path):  # and not around `found`, which reads images
            stream = part.open("w", newline="", encoding="utf-8")
        with stream:
            writer = csv.writer(stream, lineterminator="\n")
            head = ["path", "label", "predicted", "probability", *(f"p_{c}" for c in classes)]
            with saving(path):
                writer.writerow(head)
            for each in found:
                shares = (f"{share:.6g}" for share in (each.probability, *each.probabilities))
                with saving(path):
                    writer.writerow([each.path, each.label or "", each.predicted, *shares])
                count += 1
                labelled += each.label is not None
                right += each.label == each.predicted
            with saving(path):
                stream.flush()
    return Written(count, labelled, right)
