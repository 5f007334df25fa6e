"""One direction of flow: which package may import which."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("layers", ROOT / "docs" / "layers.py")
assert spec is not None and spec.loader is not None
layers = importlib.util.module_from_spec(spec)
sys.modules["layers"] = layers
spec.loader.exec_module(layers)

MODULES = layers.modules()
IMPORTS = layers.imports(MODULES)

FORBIDDEN = {
    "studies": {"torch", "optuna", "ray", "harness.training", "harness.runner", "harness.store"},
    "reports": {"torch", "timm", "optuna", "ray", "harness.training", "harness.model"},
    "baselines": {"optuna", "ray", "pandas", "harness.store", "harness.study", "harness.training"},
}
"""More than the layers ask of the folders that others write into."""


def imported_names(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_unit_has_a_layer_and_imports_only_from_below():
    for name in {layers.unit(module) for module in MODULES}:
        layers.layer(name)
    assert layers.upward(IMPORTS) == []


def test_no_packages_and_no_modules_import_each_other():
    assert layers.circles(layers.between(IMPORTS)) == []
    assert layers.circles({(each.source, each.target) for each in IMPORTS}) == []


def test_the_picture_of_the_layers_is_that_of_the_imports(tmp_path):
    layers.draw(layers.between(IMPORTS), tmp_path / "layers.svg")
    now = (tmp_path / "layers.svg").read_text()
    assert now == layers.PICTURE.read_text(), "run: python docs/layers.py --draw"


def test_the_layering_test_can_fail(tmp_path, monkeypatch):
    (tmp_path / "harness" / "spec").mkdir(parents=True)
    (tmp_path / "harness" / "spec" / "one.py").write_text("from harness.cli import two\n")
    (tmp_path / "harness" / "cli").mkdir()
    (tmp_path / "harness" / "cli" / "two.py").write_text(
        "def later():\n    import harness.spec.one\n"
    )
    monkeypatch.setattr(layers, "ROOT", tmp_path)
    every = layers.imports(layers.modules())
    assert [(each.source, each.target) for each in layers.upward(every)] == [
        ("harness.spec.one", "harness.cli.two")
    ]
    assert layers.circles(layers.between(every)) == [["cli", "spec"]]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_keep_to_their_room(package):
    for path in (ROOT / package).rglob("*.py"):
        for imported in imported_names(path):
            parents = {imported.split(".")[0], ".".join(imported.split(".")[:2])}
            assert not parents & FORBIDDEN[package], f"{path.name} imports {imported}"


@pytest.mark.slow
def test_the_package_is_imported_by_one_name_only():
    old = {"studies", "baselines", "reports"}
    for path in [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]:
        roots = {name.split(".")[0] for name in imported_names(path)}
        assert not roots & old, f"{path.name}: write harness.{min(roots & old, default='')}"


def test_reports_are_imported_where_they_are_asked_for_and_never_before():
    for module, path in MODULES.items():
        if module.startswith(("harness.reports", "harness.findings")):  # both make documents
            continue
        may_later = path.parent.name == "cli" or module in ("harness", "harness.entry")
        found = imported_names(path, top_level_only=may_later)
        assert not [name for name in found if name.startswith("harness.reports")], module


def test_training_names_no_method():
    from harness.insertion.method import METHODS

    for module, path in MODULES.items():
        if module.startswith(("harness.training", "harness.runner")):
            text = path.read_text()
            assert not [name for name in METHODS.names() if f'"{name}"' in text], module


def test_the_runner_imports_neither_optuna_nor_ray():
    for module, path in MODULES.items():
        if not module.startswith("harness.engines.ray_"):
            roots = {name.split(".")[0] for name in imported_names(path, top_level_only=True)}
            assert not roots & {"optuna", "ray", "peft"}, module


ENDS_ITSELF = {
    "harness.__main__": "the program, before the command line is there",
    "harness.engines.desk": "a worker whose driver is gone, or whose time is over",
    "harness.engines.processes": "a worker whose driver was killed",
    "harness.testing.engines": "a worker that a test has killed",
}
"""Modules outside the command line that may end their process, and which process that is."""
COMMANDS = {
    "harness.reports.redraw": "the gallery's figures from its tables, a program of its own",
    "harness.reports.reproduce": "`make reproduce`, a program of its own",
    "harness.findings.__main__": "`make findings`",
    "harness.findings.evidence": "the runs of docs/protocol.md",
    "harness.findings.tables": "the tables that ship, a part of `make findings`",
}
"""Modules that are run as programs, and so may print."""


def calls(path):
    """Every called name, as in `print` and `sys.exit`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("harness.cli")])
def test_only_the_command_line_prints_and_exits(module):
    path = MODULES[module]
    roots = {name.split(".")[0] for name in imported_names(path)}
    assert not roots & {"click", "rich"}
    found = set(calls(path)) & {"print", "exit", "quit", "sys.exit", "os._exit", "click.echo"}
    found -= {"os._exit"} if module in ENDS_ITSELF else set()
    found -= {"print", "sys.exit"} if module in COMMANDS else set()
    assert not found


MOST_MODULES, MOST_LINES, MOST_BODY = 9, 400, 60
LONG_BODIES: dict[str, str] = {}
"""Functions that may be longer, at most five: name -> why."""


def test_harness_holds_few_modules_beside_its_packages():
    beside = [path.name for path in (ROOT / "harness").glob("*.py")]
    assert len(beside) <= MOST_MODULES, beside


def test_no_file_is_longer_than_a_reader_holds():
    folders = ("harness", "baselines", "studies", "reports", "tests", "docs", "examples")
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def lengths_of_bodies(tree):
    """Every function's name and the lines of its body without the docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[ast.get_docstring(node) is not None :]
            if body:
                yield node.name, node.end_lineno - body[0].lineno + 1


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{module}.{name}": lines
        for module, path in MODULES.items()
        for name, lines in lengths_of_bodies(ast.parse(path.read_text()))
        if lines > MOST_BODY
    }
    assert len(LONG_BODIES) <= 5
    assert set(long) == set(LONG_BODIES), long
