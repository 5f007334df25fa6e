"""`harness data`: datasets on disk, before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.given import parse_settings
from harness.cli.options import (
    bad_image_option,
    data_root_option,
    examples,
    out_option,
    settings_option,
    study_file_option,
)
from harness.cli.show import print_table
from harness.cli.terminal import TERMINAL
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.data.check import Checked
    from harness.data.contract import FileDataset
    from harness.data.listing import OnBad
    from harness.data.long_tail import Counts
    from harness.spec import Frozen, Recipe

EXIT_PROBLEMS = 1
CROPS = ("recipe.augment", "recipe.crop_scale_min")
"""Fields of a recipe by which training images are cropped."""


@click.group(
    epilog=examples(
        "data check folder --data-root my_images",
        "data pack mstar --data-root mstar --size 96",
        "data bench rsscn7 --data-root rsscn7 --size 96",
    )
)
def data() -> None:
    """Look at, pack and time a dataset on disk. Nothing is downloaded unasked."""


dataset_name = click.argument("name")


OPTION = "an option of the dataset, e.g. data.options.imbalance=100"
options_option = settings_option(OPTION)
crops_option = settings_option(f"{OPTION}, or {' or '.join(CROPS)}")


@data.command(
    epilog=examples(
        "data check mstar",
        "data check folder --data-root my_images",
        "data check mstar --data-root mstar --set data.options.imbalance=50",
        "data check fusrs --data-root fusrs --set data.options.dedupe=true",
        "data check cifar100_lt --data-root cifar --download",
    )
)
@dataset_name
@data_root_option
@click.option(
    "--download",
    is_flag=True,
    help="Get what is not there yet, with torchvision's loader, where it has one.",
)
@options_option
@study_file_option()
@out_option
def check(
    name: str, data_root: str | None, download: bool, settings: tuple[str, ...], out: str
) -> None:
    """Read every image of a dataset, count its classes, and name what is wrong with it.

    Wrong are images that cannot be read, that are there twice or in train and in test, or have two
    labels; classes without a test image; and packs in --out that were damaged. Exits with 1 then.
    Without --data-root, say what to download and where to put it. Options of a dataset are fields
    for --set: data.options.imbalance=100 with data.options.tail=exp, pareto or a CSV of counts, ...
    """
    from harness.data.check import check as checked
    from harness.data.download import download as fetch
    from harness.data.listing import MissingData
    from harness.data.packed import data_folder
    from harness.driver.setup import packs_folder
    from harness.spec import DataSpec

    dataset, options, _ = _file_dataset(name, settings, "check")
    if data_root is None:
        if download:
            raise UserError("--download needs a folder to download into: give --data-root.")
        click.echo(dataset.layout)
        return
    try:
        if download:
            fetch(dataset, name, options, Path(data_root))
        root = data_folder(name, data_root)
        found = checked(dataset, name, options, root, packs_folder(out), TERMINAL)
    except MissingData:
        click.echo(dataset.layout)
        raise
    group_of = {label: group for group, labels in found.groups.items() for label in labels}
    rows = [
        [cls, group_of.get(label, "-"), *(str(part[label]) for part in _counted(found))]
        for label, cls in enumerate(found.listing.classes)
    ]
    for group, labels in found.groups.items():
        counts = (str(part[list(labels)].sum()) for part in _counted(found))
        rows.append([f"all {len(labels)} of", group, *counts])
    rows.append(["all", "", *(str(part.sum()) for part in _counted(found))])
    dev = ["dev"] if found.dev is not None else []
    print_table(["class", "group", "train", "train used", *dev, "test"], rows)
    if found.dev is not None:
        click.echo(f"Chosen on: {DataSpec(options=options.model_dump()).chosen_on_in_full}.")
    for note in found.listing.notes:
        click.echo(f"Note: {note}")
    for problem in found.problems:
        click.echo(f"Problem: {problem}.")
    if found.problems:
        click.get_current_context().exit(EXIT_PROBLEMS)
    click.echo("No problem found.")


@data.command(epilog=examples("data pack mstar --data-root mstar --size 224"))
@dataset_name
@data_root_option
@click.option(
    "--size",
    type=click.IntRange(min=8),
    default=224,
    show_default=True,
    help="Side of the backbone's input, in pixels.",
)
@bad_image_option
@crops_option
@study_file_option()
@out_option
def pack(
    name: str,
    data_root: str | None,
    size: int,
    on_bad_image: OnBad,
    settings: tuple[str, ...],
    out: str,
) -> None:
    """Decode a dataset once, into a file that trials map into memory; so do trials themselves.

    Training images keep what random crops need: about size / sqrt(recipe.crop_scale_min) pixels a
    side, or their own size where that is smaller. The share counts as 0.08 (which is the default,
    and caps the cost), 0.16, 0.32 or 0.64; --set recipe.crop_scale_min=0.64 costs fewest bytes.
    """
    from harness.data.copies import pack_scale
    from harness.data.pack import cost
    from harness.data.pack_format import open_pack, pack_folder
    from harness.data.packed import PackRequest, pack_of
    from harness.driver.setup import packs_folder
    from harness.store.store import Store

    _, options, recipe = _file_dataset(name, settings, "pack", CROPS)
    Store(Path(out)).refuse_unmakeable()
    packs = packs_folder(out)
    options_json, scale = options.model_dump_json(), pack_scale(recipe)
    asked = PackRequest(name, options_json, size, data_root, str(packs), on_bad_image, scale)
    made = pack_of(asked, TERMINAL)
    folder = pack_folder(packs, name, size, made.sha256)
    click.echo(f"{folder}: {cost(open_pack(folder))}, sha256 {made.sha256}")


@data.command("bench", epilog=examples("data bench rsscn7 --data-root rsscn7 --size 96"))
@dataset_name
@data_root_option
@click.option("--size", type=click.IntRange(min=8), default=96, show_default=True)
@crops_option
@study_file_option()
@out_option
def bench_(
    name: str, data_root: str | None, size: int, settings: tuple[str, ...], out: str
) -> None:
    """Training views of a pack and of PIL in a loader: how alike, and how many per second."""
    from harness.bench.agreement import agreement
    from harness.bench.throughput import measure
    from harness.data.contract import OwnFormat, listing_of
    from harness.data.copies import pack_scale
    from harness.data.pack import cost
    from harness.data.pack_format import open_pack, pack_folder
    from harness.data.packed import PackRequest, data_folder, pack_of
    from harness.driver.setup import packs_folder
    from harness.spec import DataSpec
    from harness.store.store import Store

    dataset, options, recipe = _file_dataset(name, settings, "bench", CROPS)
    Store(Path(out)).refuse_unmakeable()
    root, packs = data_folder(name, data_root), str(packs_folder(out))
    listing = listing_of(name, options, root)
    if listing.bands is not None:
        raise UserError("The usual loader reads RGB images: leave out data.options.bands.")
    options_json, scale = options.model_dump_json(), pack_scale(recipe)
    asked = PackRequest(name, options_json, size, data_root, packs, scale=scale)
    info = pack_of(asked, TERMINAL)
    spec = DataSpec(name=name, options=options.model_dump(mode="json"), sha256=info.sha256)
    speed = measure(spec, packs, listing.train, root, size, recipe)
    made = open_pack(pack_folder(Path(packs), name, size, info.sha256))
    read = dataset.read if issubclass(dataset, OwnFormat) else None
    found = agreement(made, listing, root, read, recipe.crop_scale_min)
    rows = [
        ["PIL loader, 2 processes", f"{speed.loader:.0f}"],
        ["pack, 2 processes", f"{speed.packed:.0f}"],
    ]
    print_table([f"views of {size} px on 2 cores", "images/s"], rows)
    click.echo(f"Ratio: {speed.packed / speed.loader:.1f}")
    click.echo(f"Pack: {cost(made)}.")
    click.echo(
        f"Against torchvision on the files, {found.views} boxes: crops differ by "
        f"{found.crop_levels:.2f} of 255 levels on average and are {found.sharpness:.2f} times as "
        f"sharp; test views differ by {found.eval_levels:.2f}, at most {found.eval_most}."
    )


def _counted(found: Checked) -> tuple[Counts, ...]:
    dev = () if found.dev is None else (found.dev,)
    return found.train, found.used, *dev, found.test


def _file_dataset(
    name: str, settings: tuple[str, ...], command: str, recipe: tuple[str, ...] = ()
) -> tuple[type[FileDataset], Frozen, Recipe]:
    """A dataset on disk, its options, and the recipe that its images are cropped by.

    Raises:
        UserError: there is none of this name, or a setting is none that the command reads: options
            of the dataset, and these fields of the recipe.
    """
    from harness.data.contract import file_dataset, options_of
    from harness.spec import TrialRequest

    dataset = file_dataset(name)
    values = {"data": name}
    for field, value in parse_settings(settings).items():
        if field in ("data", "data.name"):
            raise UserError(f"--set {field}={value}: the dataset is the one named, {name}.")
        if not f"{field}.".startswith("data.options.") and field not in recipe:
            raise UserError(
                f"--set {field} has no effect on `harness data {command}`, which reads "
                f"{' and '.join(['data.options', *recipe])}: leave it out."
            )
        values[field] = value
    request = TrialRequest().with_values(values, source="--set")
    return dataset, options_of(name, request.data.options), request.recipe
