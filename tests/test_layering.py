"""One direction of flow: which package may import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    {"harness.errors", "harness"},
    {"harness.spec", "harness.registry", "harness.rng"},
    {"harness.metrics", "harness.study", "harness.space"},
    {"harness.store", "harness.placements", "harness.comparison"},
    {"harness.runs", "harness.index", "harness.command"},
    {"harness.status", "harness.export_run", "harness.table"},
    {"harness.weights", "harness.blocks", "harness.storage", "harness.clock"},
    {"harness.backbones", "harness.files", "harness.heads"},
    {"harness.data", "harness.decode", "harness.views"},
    {"harness.pack"},
    {"harness.packed", "harness.data_check", "harness.data_bench", "harness.download"},
    {"harness.hooks"},
    {"harness.insertion", "harness.datasets", "harness.datasets.synth_rs_render"},
    {"harness.datasets.reading"},
    {"harness.datasets.synth_rs", "harness.datasets.folder", "baselines", "harness.pretrain"},
    {f"harness.datasets.{name}" for name in ("cifar100_lt", "dota", "eurosat", "fusrs")},
    {"harness.datasets.inat2018", "harness.datasets.places_lt"},
    {"harness.world"},
    {"harness.train"},
    {"harness.trial"},
    {"harness.searches", "harness.arms", "harness.export"},
    {"harness.controls", "harness.compare_methods"},
    {"harness.engine", "harness.optuna_search", "harness.population", "harness.ray_train"},
    {"harness.ray_engine", "harness.named_searches", "harness.replay"},
    {"harness.sweep"},
    {"harness.batch", "harness.bench", "harness.search_plan"},
    {"harness.compare_searches"},
    {"harness.estimate"},
    {"harness.cli.options", "harness.cli.given", "harness.cli.show"},
    {"harness.cli.train", "harness.cli.compare", "harness.cli.results"},
    {"harness.cli.data", "harness.cli.lists", "harness.cli.upkeep"},
    {"harness.cli.sweep"},
    {"harness.cli"},
]
"""Lowest first; a module imports from lower layers and its own only."""

FORBIDDEN = {
    "studies": {"torch", "optuna", "ray", "harness.train", "harness.trial", "harness.store"},
    "reports": {
        "torch",
        "timm",
        "optuna",
        "ray",
        "harness.train",
        "harness.trial",
        "harness.backbones",
    },
    "baselines": {"optuna", "ray", "pandas", "harness.store", "harness.study", "harness.train"},
}


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def layer(module):
    return next((i for i, names in enumerate(LAYERS) if module in names), None)


@pytest.mark.parametrize("path", sorted((ROOT / "harness").rglob("*.py")), ids=lambda p: p.stem)
def test_harness_modules_import_downwards(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = layer(module)
    assert own is not None, f"give {module} a layer"
    for imported in imports(path):
        root = imported.split(".")[0]
        if root in ("harness", "baselines"):
            target = layer(imported if root == "harness" else "baselines")
            assert target is not None and target <= own, f"{module} imports {imported}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_their_room(package):
    for path in (ROOT / package).rglob("*.py"):
        for imported in imports(path):
            parents = {imported.split(".")[0], ".".join(imported.split(".")[:2])}
            assert not parents & FORBIDDEN[package], f"{path.name} imports {imported}"


def test_reports_are_imported_where_they_are_asked_for_and_never_before():
    for path in (ROOT / "harness").rglob("*.py"):
        may_later = path.parent.name == "cli" or path == ROOT / "harness" / "__init__.py"
        found = imports(path, top_level_only=may_later)
        assert not [name for name in found if name.split(".")[0] == "reports"], path.name


def test_the_trainer_names_no_method():
    from harness.registry import METHODS

    text = (ROOT / "harness" / "train.py").read_text()
    assert not [name for name in METHODS.names() if f'"{name}"' in text]


def test_the_runner_imports_neither_optuna_nor_ray():
    for path in (ROOT / "harness").rglob("*.py"):
        if path.stem in ("ray_engine", "ray_train"):
            continue
        roots = {name.split(".")[0] for name in imports(path, top_level_only=True)}
        assert not roots & {"optuna", "ray"}, path.name
