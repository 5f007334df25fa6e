"""Kinds of generated inputs: each ends in success, or in one sentence of what is wrong.

`test_fuzz` gives every kind some dozens of inputs, `make stress` thousands.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.cli import main
from harness.errors import UserError
from harness.insertion.placements import read_placement
from harness.model.backbones import load_backbone
from harness.model.weights import load_into
from harness.reports.numbers.run import load_run
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.budget import Budget
from harness.spec import POSITIONS, BackboneSpec, Placement, TrialSpec
from harness.spec.sites import parse_depth
from harness.store.run_folder import RunFolder
from harness.store.store import Store
from harness.store.table import read_table, tabulate
from harness.study.axes import Axis
from support.images import picture
from support.records import TINY, tiny_study
from support.sweeps import made_sweep
from support.tables import small_study

LONGEST = 700
"""Characters of a sentence that someone reads."""


class Kind(NamedTuple):
    """Inputs of one kind and what must hold of each; `weight` of `make stress`'s inputs."""

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], object]
    weight: int


KINDS: dict[str, Kind] = {}


def kind(inputs: st.SearchStrategy[Any], weight: int = 1) -> Callable[..., Callable[[Any], object]]:
    def register(check: Callable[[Any], object]) -> Callable[[Any], object]:
        KINDS[check.__name__] = Kind(inputs, check, weight)
        return check

    return register


# What an answer may be.


@contextlib.contextmanager
def refused_in_one_sentence() -> Iterator[None]:
    """Success, or a `UserError` that can be read."""
    try:
        yield
    except UserError as error:
        is_sentence(str(error))


def is_sentence(text: str) -> None:
    assert text.strip() and len(text) <= LONGEST, text[:LONGEST]
    assert "\n" not in text.strip() and "Traceback" not in text, text


def commanded(*words: object, answers: tuple[int, ...] = (0,)) -> None:
    """A command ends with one of its `answers`, or with 2 or 3 and one sentence."""
    done = CliRunner().invoke(main, list(map(str, words)))
    raised = done.exc_info[1] if done.exc_info else None
    assert raised is None or isinstance(raised, SystemExit), repr(raised)
    assert done.exit_code in (*answers, 2, 3), done.output
    assert "Traceback" not in done.output
    if done.exit_code not in answers:
        is_sentence(done.stderr.strip().splitlines()[-1])


# Words.

OF_RECIPES = "lr epochs batch_size augment precision head_scale"
OF_DATA = "name options options.test_per_class options.seed val_fraction select_on sha256"
OF_BACKBONES = "name weights img_size sha256"
OTHERS = "recipe data backbone options options.rank options.rnak placement method positions depth"
WRONG = "alpha seed reciep.lr . .. recipe. nothing"
FIELDS = [
    *(f"recipe.{name}" for name in OF_RECIPES.split()),
    *(f"data.{name}" for name in OF_DATA.split()),
    *(f"backbone.{name}" for name in OF_BACKBONES.split()),
    *OTHERS.split(),
    *WRONG.split(),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-3, max_value=300),
    st.floats(),
    st.sampled_from(["val", "test", "vit_pico", "random", "lora", "q,v", "last:3", "all", "none"]),
    st.text(max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
WRITTEN = st.one_of(
    VALUES.map(json.dumps),
    st.text(max_size=20),
    st.sampled_from(["9" * 5000, "[" * 100_000, '"\\ud800"', '"\\u0000"', "1e999", "-0", "nan"]),
)
SETTINGS = st.lists(st.tuples(st.sampled_from(FIELDS), WRITTEN), min_size=1, max_size=2)


@kind(SETTINGS, weight=8)
def settings(given: list[tuple[str, str]]) -> None:
    """`--set` of a sweep that would be run."""
    words = [word for field, value in given for word in ("--set", f"{field}={value}")]
    with tempfile.TemporaryDirectory() as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.driver.plan.Plan.estimated_device_s", lambda self, runtime: 1.0)
        commanded(
            *("sweep", "--study", "depth_vs_position", "--smoke", "--dry-run", "--out", out),
            *("--workers", 1, *words),
        )
        assert not list(Path(out).iterdir()), "a dry run leaves no trace"


FORMS = st.sampled_from(["last", "first", "block", "blocks", "all", "Last", "last ", ""])
NUMBERS = st.integers(-2, 40).map(str) | st.text("0123456789-.:², ", max_size=6)


@kind(st.builds("{}{}{}".format, FORMS, st.sampled_from([":", "", "-"]), NUMBERS), weight=3)
def depths(text: str) -> None:
    with refused_in_one_sentence():
        blocks = parse_depth(text, 12)
        assert blocks and set(blocks) <= set(range(12)) and list(blocks) == sorted(set(blocks))


AMOUNTS = st.integers().map(str) | st.floats().map(str) | st.sampled_from(["9" * 400, "", "1,5"])
UNITS = st.sampled_from(["", "trials", "epochs", "s", "runs", "run", " trials", "h"])


@kind(st.builds("{}{}".format, AMOUNTS, UNITS), weight=3)
def budgets(text: str) -> None:
    with refused_in_one_sentence():
        budget = Budget.parse(text)
        assert 0 < budget.amount < float("inf")


SITES = st.builds("{}.{}".format, st.integers(-1, 13), st.sampled_from([*POSITIONS, "", "mlp"]))
ALPHAS = st.floats() | st.integers() | st.none() | st.text(max_size=3)
PLACED = st.dictionaries(SITES | st.text(max_size=6), ALPHAS, max_size=4)
PLACEMENT_FILES = st.one_of(
    st.fixed_dictionaries(
        {}, optional={"placement": PLACED, "method": SCALARS, "trials": VALUES, "rule": SCALARS}
    ).map(lambda content: json.dumps(content).encode()),
    VALUES.map(lambda content: json.dumps(content).encode()),
    st.binary(max_size=40),
)


@kind(PLACEMENT_FILES, weight=3)
def placement_files(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, refused_in_one_sentence():
        path = Path(folder, "placement.json")
        path.write_bytes(content)
        read_placement(path)


# Objects.

AXES = st.dictionaries(
    st.sampled_from(["positions", "depth", "alpha", "recipe.lr", "options.rank", "method", "seed"]),
    st.lists(SCALARS, min_size=1, max_size=3),
    min_size=1,
    max_size=2,
)


@kind(AXES, weight=2)
def studies(axes: dict[str, list[Any]]) -> None:
    """All that a study object accepts is a trial, in every cell."""
    with refused_in_one_sentence():
        try:
            made = [Axis(field=name, values=tuple(v), label=name) for name, v in axes.items()]
            study = tiny_study(axes=tuple(made), views=())
        except ValidationError:
            return  # of a file it is made one sentence, in `load_study`
        for _, request in study.cell_requests():
            resolve(request, Runtime())


REQUESTS = st.fixed_dictionaries(
    {
        "alpha": st.floats(1e-6, 1e6),
        "depth": st.builds("last:{}".format, st.integers(1, 12)),
        "positions": st.sets(st.sampled_from(("q", "k", "v", "out", "mlp1", "mlp2")), min_size=1),
        "seed": st.integers(0, 2**31 - 1),
        "recipe.lr": st.floats(1e-8, 10),
        "recipe.epochs": st.integers(1, 1000),
        "options.rank": st.integers(1, 64),
    }
)


@kind(REQUESTS, weight=2)
def specs(values: dict[str, Any]) -> None:
    """Written and read, a trial and its placement are the same, by the same id."""
    positions = ",".join(sorted(values["positions"]))
    spec = resolve(TINY.with_values({**values, "positions": positions}, source="fuzz"), Runtime())
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and again.trial_id == spec.trial_id
    assert Placement.model_validate_json(spec.placement.model_dump_json()) == spec.placement
    shuffled = dict(sorted(spec.placement.root.items(), reverse=True))
    assert list(Placement(shuffled).root) == list(spec.placement.root)


# Files.

_MADE = tempfile.TemporaryDirectory(prefix="fuzz-")


def _made(name: str, make: Callable[[Path], object]) -> Path:
    """A folder or file that is made once in a process."""
    path = Path(_MADE.name, name)
    if not path.exists():
        make(path)
    return path


OF_OTHERS = [b"", b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", "{}".encode("utf-16")]
REPLACED = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(OF_OTHERS),
    VALUES.map(lambda value: json.dumps(value).encode()),
)
DAMAGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("replaced"), REPLACED),
    st.tuples(st.just("appended"), REPLACED),
    st.tuples(st.just("byte"), st.floats(0, 1)),
)


def damaged(content: bytes, how: str, what: Any) -> bytes:
    if how == "cut":
        return content[: int(len(content) * what)]
    if how == "byte":
        at = min(len(content) - 1, int(len(content) * what))
        return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :] if content else b""
    return what if how == "replaced" else content + what


READERS = st.sampled_from(["status", "tabulate", "read"])


@kind(st.tuples(st.integers(0, 999), DAMAGES, READERS), weight=4)
def run_files(given: tuple[int, tuple[str, Any], str]) -> None:
    """One of a run's files is damaged, of another program, or half written."""
    which, damage, then = given
    study = small_study()
    whole = _made("run", lambda path: made_sweep(path, study))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "store")
        shutil.copytree(whole, root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        chosen = files[which % len(files)]
        chosen.write_bytes(damaged(chosen.read_bytes(), *damage))
        if then == "status":
            commanded("status", study.name, "--out", root)
        elif then == "tabulate":
            commanded("tabulate", study.name, "--file", Path(folder, "t.parquet"), "--out", root)
        else:
            with refused_in_one_sentence():
                load_run(RunFolder.of(Store(root), study.name))


@kind(st.tuples(st.sampled_from(["bytes", "column", "cell"]), st.integers(0, 10**6), DAMAGES), 2)
def tables(given: tuple[str, int, tuple[str, Any]]) -> None:
    """A table of somebody else's: damaged, without a column, with a value of another kind."""
    how, which, damage = given
    whole = _made("table.parquet", _made_table)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        if how == "bytes":
            path.write_bytes(damaged(whole.read_bytes(), *damage))
        else:
            _rewritten(whole, path, how, which)
        with refused_in_one_sentence():
            read_table(path)


def _made_table(path: Path) -> None:
    tabulate([made_sweep(path.with_suffix(".store"), small_study())], path)


def _rewritten(whole: Path, path: Path, how: str, which: int) -> None:
    table = pq.read_table(whole)
    name = table.column_names[which % len(table.column_names)]
    if how == "column":
        pq.write_table(table.drop_columns([name]), path)
        return
    column = table[name].to_pylist()
    column[which % len(column)] = None
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, name, pa.array(column, table[name].type)), path)


LEVELS = st.lists(st.sampled_from(["state_dict", "model", "module.", "ema", "teacher"]), max_size=3)
ADDED = st.dictionaries(st.text(max_size=6), st.sampled_from(["tensor", 3, "text", None]))
MANGLED = st.sampled_from(["", "lost", "nan", "int8", "shape", "cut", "list"])


@kind(st.tuples(LEVELS, ADDED, MANGLED), weight=1)
def checkpoints(given: tuple[list[str], dict[str, Any], str]) -> None:
    """Tensors of a backbone below names of other people's programs, some of them spoilt."""
    levels, added, how = given
    spec = BackboneSpec(name="vit_pico", weights="random")
    model = copy.deepcopy(load_backbone(spec, torch.device("cpu")))
    state: dict[str, Any] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = next(name for name in state if name.endswith("weight"))
    spoil = {
        "nan": lambda t: torch.full_like(t, torch.nan),
        "int8": lambda t: t.to(torch.int8),
        "shape": lambda t: t[..., :1],
        "list": lambda t: [1, 2],
    }
    if how == "lost":
        del state[first]
    elif how in spoil:
        state[first] = spoil[how](state[first])
    content: Any = state
    for level in levels:
        if level.endswith("."):
            content = {level + name: value for name, value in content.items()}
        else:
            beside = {k: torch.zeros(1) if v == "tensor" else v for k, v in added.items()}
            content = {**beside, level: content}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pt")
        torch.save(content, path)
        if how == "cut":
            path.write_bytes(path.read_bytes()[:-1000])
        with refused_in_one_sentence():
            load_into(model, path, "vit_pico")
            assert how in ("", "list"), "spoilt weights were taken"


COMMON = "a b c A train test val Train Test valid dev images my_images"
STRAY = "x.tar meta.parquet train.csv .git README.txt"
NAMES = st.sampled_from([*COMMON.split(), *STRAY.split()])
LEAVES = st.sampled_from(["image", "image", "image", "text", "empty"])
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | LEAVES, max_size=3),
    max_leaves=8,
)


@kind(TREES, weight=2)
def folders(tree: dict[str, Any]) -> None:
    """Folders of images as people keep them."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "data")
        _grow(root, tree)
        words = ("data", "check", "folder", "--data-root", root, "--out", Path(place, "out"))
        commanded(*words, answers=(0, 1))


def _grow(folder: Path, tree: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, what) in enumerate(tree.items()):
        suffix = {"image": ".png", "text": ".csv"}.get(what, "") if isinstance(what, str) else ""
        path = folder / (name if name.endswith(suffix) else f"{name}{suffix}")
        if path.exists():
            continue
        if isinstance(what, dict):
            _grow(path, what)
        elif what == "image":
            picture(number).save(path)
        else:
            path.write_text("path,label\na.png,x\n" if what == "text" else "")
