"""An installed copy owns one import name, `harness`, whatever lies first on the path.

The wheel and the sdist are built here, without network, and the wheel is unpacked onto the path of
fresh interpreters, as is the checkout (with its links `harness/{studies,baselines,reports}`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main

ROOT = Path(__file__).parent.parent
BUILD = (
    "import sys; from hatchling.build import *; build_wheel(sys.argv[1]); build_sdist(sys.argv[1])"
)


def build(source, into):
    """Build wheel and sdist of a source tree by its own configuration."""
    subprocess.run([sys.executable, "-c", BUILD, into], cwd=source, check=True, capture_output=True)
    return next(into.glob("*.whl")), next(into.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """A folder with the installed files of the wheel."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(folder)
    return folder


ONLY_ONE = """
import os, sys
def is_another(folder):
    has_it = os.path.isfile(os.path.join(folder, "harness", "__init__.py"))
    return has_it and os.path.realpath(folder) not in {kept}
sys.path[:] = [folder for folder in sys.path if not is_another(folder)]
"""
"""Takes an editable install off the path: an installed copy has no folders beside `harness`."""


def python(code, *, path, cwd):
    """Run code in a fresh interpreter with these folders first on its path."""
    prelude = ONLY_ONE.replace("{kept}", repr([os.path.realpath(folder) for folder in path]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [sys.executable, "-c", prelude + code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(params=["checkout", "wheel"])
def installed(request):
    """Where `harness` is imported from."""
    return ROOT if request.param == "checkout" else request.getfixturevalue("unpacked")


RESULTS = {Path("harness/reports") / name for name in ("gallery", "archives", "findings")}
"""Folders that a checkout has and an installed copy has not."""


def files_of_the_package():
    """Every file that belongs into an installed copy, by the name it is to have there."""
    found = set()
    for folder, folders, files in os.walk(ROOT / "harness", followlinks=True):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [n for n in folders if n != "__pycache__" and here / n not in RESULTS]
        found |= {str((Path(folder) / name).relative_to(ROOT)) for name in files}
    return found


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        files = {info.filename: info for info in wheel.infolist()}
        content = {name: wheel.read(name) for name in files}
    metadata = {name for name in files if name.split("/")[0].endswith(".dist-info")}
    ours = set(files) - metadata
    assert ours == files_of_the_package()
    assert {name.split("/")[0] for name in ours} == {"harness"}
    assert ours >= {
        "harness/py.typed",
        "harness/assets/joint_space.parquet",
        "harness/assets/vit_pico.safetensors",
        "harness/baselines/paper/fig1c.csv",
        "harness/reports/templates/page_map.js",
        "harness/reports/templates/report.md.jinja",
    }
    assert not [name for name, info in files.items() if stat.S_ISLNK(info.external_attr >> 16)]
    assert not [name for name in ours if content[name] != (ROOT / name).read_bytes()]


@pytest.mark.slow
def test_the_sdist_has_every_file_once_and_builds_the_same_wheel(built, tmp_path):
    names = {}
    with tarfile.open(built[1]) as sdist:
        assert not [member.name for member in sdist if member.issym() or member.islnk()]
        for member in sdist:
            content = sdist.extractfile(member).read()
            digest = hashlib.sha256(content).hexdigest()
            names.setdefault(digest, []).append(member.name.partition("/")[2])
            inner = Path(member.name.partition("/")[2])
            assert not RESULTS & set(inner.parents), inner
        sdist.extractall(tmp_path, filter="data")
    empty = hashlib.sha256(b"").hexdigest()
    # Of a fixture, a store, two records may be alike.
    names = {d: [n for n in each if "/fixtures/" not in n] for d, each in names.items()}
    assert not {d: each for d, each in names.items() if len(each) > 1 and d != empty}
    (tmp_path / "dist").mkdir()
    (source,) = tmp_path.glob("peft_hpo_harness-*")
    wheel, _ = build(source, tmp_path / "dist")
    with zipfile.ZipFile(built[0]) as one, zipfile.ZipFile(wheel) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {
            i.filename: i.CRC for i in other.infolist()
        }


EVERY_MODULE = """
import inspect, os, pkgutil, sys
import harness
before = {name: value for name, value in vars(harness).items() if callable(value)}
for module in pkgutil.walk_packages(harness.__path__, "harness."):
    __import__(module.name)
root = %r
names = {}
for name, module in list(sys.modules.items()):
    file = os.path.realpath(getattr(module, "__file__", None) or "/")
    # The environment may lie in the checkout, as make puts it there.
    if file.startswith(root + os.sep) and not file.startswith(sys.prefix + os.sep):
        names.setdefault(file, []).append(name)
twice = {file: each for file, each in names.items() if len(each) > 1}
assert not twice, twice
foreign = [name for each in names.values() for name in each if name.split(".")[0] != "harness"]
assert not foreign, foreign
after = {name: vars(harness)[name] for name in before}
assert after == before, "a module has taken a function's name"
called = {"train", "sweep", "compare", "load"}
assert all(inspect.isfunction(getattr(harness, name)) for name in called)
assert called <= set(dir(harness))
from harness.registry import Registry
registries = {
    id(value): value
    for name, module in list(sys.modules.items()) if name.split(".")[0] == "harness"
    for value in vars(module).values() if isinstance(value, Registry)
}
sizes = []
for registry in registries.values():
    ours = [name for name in registry.names() if registry.distribution(name) is None]
    entries = [registry.get(name) for name in ours]
    sizes.append(len(entries))
    made_by = {(entry.__module__, entry.__qualname__) for entry in entries}
    foreign = [module for module, _ in made_by if module.split(".")[0] != "harness"]
    assert not foreign, foreign
assert sum(size > 3 for size in sizes) >= 2, sizes  # one is for what users add alone
print(len(names))
"""


@pytest.mark.slow
def test_no_file_is_imported_under_two_names(installed, tmp_path):
    run = python(EVERY_MODULE % str(installed.resolve()), path=[installed], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    sources = [name for name in files_of_the_package() if name.endswith(".py")]
    assert int(run.stdout.split()[-1]) == len(sources)


OWN_FILES = {
    "reports.py": "raise RuntimeError('a file of the user was imported: reports')\n",
    "baselines.py": "raise RuntimeError('a file of the user was imported: baselines')\n",
    "studies/__init__.py": "raise RuntimeError('a file of the user was imported: studies')\n",
}

COMMANDS = """
import harness, sys
assert harness.__file__.startswith(%r), harness.__file__
from harness.cli import main
few = "--set data.options.test_per_class=4 --set data.val_fraction=0.8".split()
study = ["--study", "depth_vs_position", "--smoke", *few]
name = "depth_vs_position+data.options.test_per_class=4+data.val_fraction=0.8+smoke"
for words in (
    ["list", "methods"],
    ["list", "studies"],
    ["sweep", *study, "--dry-run"],
    ["sweep", *study, "--budget", "2", "--workers", "1"],
    ["report", name],
    ["train", "--method", "linear_probe", *few, "--set", "recipe.epochs=1", "--workers", "1"],
):
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, (words, end.code)
results = harness.load(name)
assert list(results.trials.status).count("COMPLETE") == 2
"""


@pytest.mark.slow
def test_files_of_the_user_with_the_same_names_are_left_alone(installed, tmp_path):
    for name, text in OWN_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run = python(COMMANDS % str(installed), path=[tmp_path, installed], cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "metapeft" in run.stdout and "joint_space" in run.stdout
    assert len(list((tmp_path / "runs" / "trials").glob("*/record.json"))) == 3


OLD_NAMES = {
    "studies": "from studies.depth_vs_position import study",
    "baselines": "import baselines.lora\ndef study(): pass",
    "reports": "from reports.frames import load_run\ndef study(): pass",
}


def refusal(folder, name):
    """What is said of `old_<folder>.py`, which imports `name`."""
    return (
        f"Error: old_{folder}.py cannot import {name}: what ships with the harness is imported as "
        f"harness.{folder}.\n"
    )


@pytest.mark.parametrize("folder", OLD_NAMES)
def test_a_study_file_with_an_old_name_is_told_the_new_one(folder, tmp_path, monkeypatch):
    file = tmp_path / f"old_{folder}.py"
    file.write_text(OLD_NAMES[folder])
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)  # where the folder is found, and refuses to be imported
    run = CliRunner().invoke(main, ["sweep", "--study", str(file), "--dry-run"])
    assert (run.exit_code, run.output) == (2, refusal(folder, folder))


LOAD_ALL = """
import importlib, pathlib, sys
from harness.cli import main
for file in sorted(pathlib.Path().glob("old_*.py")):
    folder = pathlib.Path(file.stem.removeprefix("old_"))
    for has_folder in (False, True):
        if has_folder:
            folder.mkdir()
            (folder / "__init__.py").touch()
            importlib.invalidate_caches()
        try:
            main(["sweep", "--study", str(file), "--dry-run"])
        except SystemExit as end:
            assert end.code == 2, end.code
"""


@pytest.mark.slow
def test_so_it_is_by_the_wheel_with_or_without_a_folder_of_that_name(unpacked, tmp_path):
    expected = ""
    for folder, text in sorted(OLD_NAMES.items()):
        (tmp_path / f"old_{folder}.py").write_text(text)
        expected += refusal(folder, folder) + refusal(folder, text.split()[1])
    run = python(LOAD_ALL, path=[unpacked], cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, expected)
