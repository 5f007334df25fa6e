"""The example packages of `docs/extending.md`, built as wheels and put on the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
SWEEPS = {
    "ssf": [
        "ssf_vs_lora.py",
        "--smoke",
        "--set",
        "data.options.test_per_class=2",
        "--set",
        "data.val_fraction=0.8",
    ],
    "lab": ["lab_strengths.py", "--smoke", "--search", "coordinate", "--budget", "3"],
}
LISTED = {
    "methods": "harness-ssf 0.1.0",
    **dict.fromkeys(("datasets", "backbones", "searches"), "harness-lab 0.1.0"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with both packages as pip would leave them."""
    folder = tmp_path_factory.mktemp("site")
    for name in SWEEPS:
        dist = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "-c", BUILD, str(dist)]
        subprocess.run(command, cwd=EXAMPLES / name, check=True, capture_output=True)
        with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder


def run(site, cwd, *words):
    """A fresh interpreter that has the packages; it must end well."""
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


HARNESS = ("-c", "from harness.cli import main; main()")


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_an_example_keeps_its_contracts(site, tmp_path, name):
    tests = EXAMPLES / name / "tests"
    out = run(site, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert " passed" in out or "[100%]" in out


@pytest.mark.slow
def test_the_examples_stand_in_the_lists(site, tmp_path):
    lists = "from click.testing import CliRunner; from harness.cli import main\n"
    lists += (
        f"for kind in {list(LISTED)}: print(CliRunner().invoke(main, ['list', kind]).output, '|')"
    )
    said = " ".join(run(site, tmp_path, "-c", lists).split()).split("|")
    for (kind, package), text in zip(LISTED.items(), said, strict=False):
        assert package in text, kind


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.parametrize("name", SWEEPS)
def test_an_example_is_swept_by_workers(site, tmp_path, name, engine):
    study, *rest = SWEEPS[name]
    command = ["sweep", "--study", EXAMPLES / name / study, *rest, "--out", tmp_path / "runs"]
    command += ["--device", "cpu", "--engine", engine, "--workers", "2"]
    run(site, tmp_path, *HARNESS, *command)
    records = [json.loads(p.read_text()) for p in tmp_path.glob("runs/trials/*/record.json")]
    assert {record["status"] for record in records} == {"COMPLETE"} and len(records) >= 3
    used = {(r["spec"]["method"], r["spec"]["backbone"]["name"]) for r in records}
    assert used & {("ssf", "vit_pico"), ("lora", "lab_vit")}
