"""The example packages of `docs/extending.md`, built as wheels and put on the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from support.cli import harness
from support.processes import Fork, Forked

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
FEW = ["--smoke", "--set", "data.val_fraction=0.8"]
STUDIES = {"ssf": "ssf_vs_lora.py", "lab": "lab_strengths.py"}
SWEEPS = {
    "ssf": [*FEW, "--set", "data.options.test_per_class=2"],
    "lab": [*FEW, "--search", "coordinate", "--budget", "3"],
}
BOTH = ["--set", "backbone=lab_vit", "--set", "backbone.weights=random", "--set", "data=gratings"]
"""What makes the study of one package use all that the other one brings to a worker."""
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


def with_packages(site, cwd):
    """Have them on the path of a fork, and so of its workers."""
    os.chdir(cwd)
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])  # for those of Ray
    torch.set_num_threads(1)


def keep_contracts(site, cwd):
    with_packages(site, cwd)
    tests = [str(EXAMPLES / name / "tests") for name in SWEEPS]
    sys.exit(pytest.main(["-v", "-p", "no:cacheprovider", *tests]))


@pytest.mark.slow
def test_the_examples_keep_their_contracts(site, tmp_path):
    tests = Fork(keep_contracts, site, tmp_path).end()
    assert tests.returncode == 0, tests.output[-3000:]
    for name in SWEEPS:
        assert f"{name}/tests/test_{name}.py" in tests.output


def print_lists(site, cwd):
    with_packages(site, cwd)
    for kind in LISTED:
        print(harness("list", kind).output, "|")


@pytest.mark.slow
def test_the_examples_stand_in_the_lists(site, tmp_path):
    said = " ".join(Fork(print_lists, site, tmp_path).end().output.split()).split("|")
    for (kind, package), text in zip(LISTED.items(), said[:-1], strict=True):
        assert package in text, kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,words,used",
    [
        ("ssf", SWEEPS["ssf"], ("ssf", "vit_pico", "synth-rs")),
        ("lab", SWEEPS["lab"], ("lora", "lab_vit", "gratings")),
        ("ssf", [*FEW, *BOTH, "--engine", "ray"], ("ssf", "lab_vit", "gratings")),
    ],
    ids=["ssf-local", "lab-local", "both-ray"],
)
def test_examples_are_swept_by_workers(site, tmp_path, name, words, used):
    run = Forked(
        *(EXAMPLES / name / STUDIES[name], tmp_path / "runs", *words),
        *("--device", "cpu", "--workers", "1"),
        prepare=partial(with_packages, site, tmp_path),
    ).end()
    assert run.returncode == 0, run.errors[-3000:]
    records = [json.loads(p.read_text()) for p in tmp_path.glob("runs/trials/*/record.json")]
    assert {record["status"] for record in records} == {"COMPLETE"} and len(records) >= 3
    specs = [record["spec"] for record in records]
    assert used in {(s["method"], s["backbone"]["name"], s["data"]["name"]) for s in specs}
