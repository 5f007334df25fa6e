"""What the datasets of torchvision and torchgeo have in common: a library's class lists the images.

The library's own class is built once for every part, on files that the user has, and asked for
paths or rows and labels. Owns: which options such datasets have, how parts become train and test,
and the sentences about what is missing. Must not know: any dataset by name, packs, models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, JsonValue

from harness.data.dataset import stratified
from harness.data.listing import Item, Listing, MissingData
from harness.data.long_tail import LongTail
from harness.errors import UserError
from harness.rng import generator
from harness.spec import Frozen, Seed

Arguments = Mapping[str, JsonValue]
"""Keyword arguments of a library's class that choose a part of a dataset."""


class TwoParts(LongTail):
    """Of a dataset with an official train and test part."""


class ThreeParts(LongTail):
    """Of a dataset with an official train, val and test part."""

    with_val: bool = False
    """Whether the images of val are training images too; else they are left out, as what is chosen
    on is drawn from the training images."""


class OnePart(LongTail):
    """Of a dataset that ships no split."""

    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of every class that is kept for testing."""
    split_seed: Seed = 0


OURS = frozenset({*ThreeParts.model_fields, *OnePart.model_fields})
"""Options that are not arguments of a library's class."""


@dataclass(frozen=True, kw_only=True)
class LibrarySet:
    """A row of a table of datasets: `train`, `val` and `test` are arguments of its class."""

    name: str
    what: str
    needs: tuple[str, ...]
    """Folders or files below the root without which there is nothing to list."""
    train: Arguments
    val: Arguments | None = None
    test: Arguments | None = None
    options: type[LongTail]
    bands: tuple[int, ...] | None = None
    """Bands that make RGB, where the files have more."""

    def said(self) -> str:
        """The parts, and the arguments that choose them, for a note."""
        if self.test is None:
            return "no official split"
        parts = [("train", self.train), ("val", self.val), ("test", self.test)]
        return ", ".join(
            f"{name}: {' '.join(f'{key}={value!r}' for key, value in given.items())}"
            for name, given in parts
            if given is not None
        )


class Part(NamedTuple):
    """Images of a part of a dataset: `(listed path, label)`, and names of classes, if known."""

    images: list[tuple[str, int]]
    classes: tuple[str, ...] | None


def found_in(row: LibrarySet, family: str, root: Path) -> None:
    """Look for the files that a library's class expects.

    Raises:
        MissingData: one is not there; names it.
    """
    for needed in row.needs:
        if not (root / needed).exists():
            raise MissingData(
                f"{root / needed} is missing: {family}'s {row.name} expects "
                f"{' and '.join(row.needs)} in --data-root; see `harness data check "
                f"{family}:{row.name}`."
            )


def listed(
    row: LibrarySet, family: str, options: LongTail, root: Path, part: Callable[[Arguments], Part]
) -> Listing:
    """The listing of a dataset whose parts `part` reads.

    Raises:
        MissingData: its files are not there.
        UserError: a part is empty or has a class that no training image has.
    """
    found_in(row, family, root)
    more: dict[str, JsonValue] = {
        name: getattr(options, name) for name in type(options).model_fields if name not in OURS
    }
    notes = [f"split as {family} has it ({row.said()})"] if row.test is not None else []
    train = part({**row.train, **more})
    images = train.images
    if row.test is None:
        images, held = _drawn_apart(images, options, notes)
    else:
        held = part({**row.test, **more}).images
    if row.val is not None:
        val = part({**row.val, **more}).images
        used = getattr(options, "with_val", False)
        images = images + val if used else images
        notes.append(f"{len(val)} images of val are {'trained on' if used else 'left out'}")
    classes, index = _classes(row, train.classes, images, held)
    return Listing(
        classes=classes,
        train=tuple(Item(path, index[label]) for path, label in images),
        test=tuple(Item(path, index[label]) for path, label in held),
        bands=row.bands,
        notes=tuple(f"{note}." for note in notes),
    )


def _drawn_apart(
    images: list[tuple[str, int]], options: Frozen, notes: list[str]
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    assert isinstance(options, OnePart)
    labels = torch.tensor([label for _, label in images])
    rng = generator(options.split_seed, "test split")
    rest, sample = stratified(labels, options.test_fraction, rng)
    notes.append(f"No split is official: {len(sample)} images are drawn for testing")
    return [images[i] for i in rest], [images[i] for i in sample]


def _classes(
    row: LibrarySet,
    names: Sequence[str] | None,
    train: Iterable[tuple[str, int]],
    test: Iterable[tuple[str, int]],
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the classes that have images, and from a library's labels to places in them."""
    trained, tested = {label for _, label in train}, {label for _, label in test}
    if not trained or not tested:
        raise UserError(f"{row.name} has no {'test' if trained else 'training'} image: get it new.")
    if tested - trained:
        raise UserError(
            f"{row.name}: label {min(tested - trained)} has test images and no training image."
        )
    labels = sorted(trained)
    known = names is not None and labels[0] >= 0 and labels[-1] < len(names)
    words = [names[label] if known and names else str(label) for label in labels]
    # Some libraries give two classes one name, as ImageNet's two cranes.
    unique = tuple(
        f"{word} ({label})" if words.count(word) > 1 else word
        for word, label in zip(words, labels, strict=True)
    )
    return unique, {label: place for place, label in enumerate(labels)}


def built(make: Callable[..., Any], row: LibrarySet, family: str, **arguments: JsonValue) -> Any:
    """A library's dataset on files that are there.

    Raises:
        UserError: the library needs another one, or cannot read the files; with its reason.
    """
    page = f"see `harness data check {family}:{row.name}`"
    try:
        return make(**arguments)
    except ImportError as error:
        missing = error.name or str(error).split("\n")[0]
        raise UserError(
            f"{family}'s {row.name} needs {missing}: `pip install {missing}`."
        ) from error
    except Exception as error:  # of broken files, a library raises whatever it stumbles over
        reason = " ".join(
            str(error).replace("You can use download=True to download it", "").split()
        )
        raise MissingData(
            f"{family} cannot read {row.name} in {arguments.get('root')}, where it expects "
            f"{' and '.join(row.needs)} ({reason[:200] or type(error).__name__}): {page}."
        ) from error


def relative(root: Path, path: str | Path) -> str:
    """A path below the root as it is listed."""
    return Path(path).relative_to(root).as_posix()
