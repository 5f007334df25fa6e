"""What users add: by entry points of installed packages, and in study files, in every process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from support.few import FEW
from support.own_study import elsewhere, study_file

from harness.catalogue.studies import StudyFile, load_in_worker, load_study, loaded_files
from harness.cli import main
from harness.comparison.methods import compared_methods
from harness.data.contract import DATASETS
from harness.data.dataset import normalised
from harness.errors import UserError
from harness.insertion.method import METHODS, PeftMethod
from harness.model.backbones import BACKBONES
from harness.runner.prepare import attached
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import Frozen, TrialRequest


def statuses(out):
    records = Path(out).glob("trials/*/record.json")
    return sorted(json.loads(path.read_text())["status"] for path in records)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_workers_know_what_a_study_file_registers(tmp_path, engine):
    """In a process of its own: here, other tests' files would be known already."""
    file = study_file(tmp_path, "scaling")
    place = ["--out", tmp_path / "runs", "--device", "cpu", "--workers", 1]
    run = elsewhere("sweep", "--study", file, "--engine", engine, *place)
    assert run.returncode == 0, run.errors[-3000:]
    assert statuses(tmp_path / "runs") == ["COMPLETE"] * 2
    if engine == "local":
        refused = elsewhere("verify", "own", "--sample", 2, *place)
        assert refused.returncode == 2 and "scaling" in refused.errors, refused.errors[-3000:]
        again = elsewhere("verify", "own", "--sample", 2, "--study", file, *place)
        assert again.returncode == 0, again.errors[-3000:]
        assert "2 of 2 trials agree" in again.output


def test_a_study_file_registers_once_however_often_it_is_loaded(tmp_path):
    file = study_file(tmp_path, "once")
    (tmp_path / "copy").mkdir()
    load_study(str(file))
    first = METHODS.get("once")
    load_study(str(file))
    load_study(str(study_file(tmp_path / "copy", "once")))
    carried = {each.path: each for each in Runtime().study_files}
    load_in_worker((carried[str(file)],))
    assert METHODS.get("once") is first
    assert carried[str(file)].text == file.read_text()


def test_a_study_file_that_takes_a_name_is_refused_and_leaves_nothing(tmp_path):
    load_study(str(study_file(tmp_path, "taken")))
    first, known = METHODS.get("taken"), loaded_files()
    other = study_file(tmp_path, "taken", factor=2.0, file="other.py")
    with pytest.raises(UserError, match=r"other\.py: Method 'taken' is already .* by own\.py"):
        load_study(str(other))
    built_in = study_file(tmp_path, "lora", file="third.py")
    with pytest.raises(UserError, match=r"third\.py: Method 'lora' is built in"):
        load_study(str(built_in))
    assert METHODS.get("taken") is first and loaded_files() == known
    broken = study_file(tmp_path, "half", file="fourth.py")
    broken.write_text(broken.read_text().replace("input_size=32", "input_size=32, x=1"))
    with pytest.raises(UserError, match=r"fourth\.py cannot be read as Python"):
        load_study(str(broken))
    assert "half" not in METHODS.names() and "half-data" not in DATASETS.names()
    load_study(str(study_file(tmp_path, "half", file="fourth.py")))
    assert "half_vit" in BACKBONES.names()


def test_a_name_given_twice_in_one_file_is_refused(tmp_path):
    file = study_file(tmp_path, "double")
    file.write_text(file.read_text() + "\n\nMETHODS.add('double', type('Z', (Scaling,), {}))\n")
    with pytest.raises(UserError, match=r"Method 'double' is already registered by own\.py"):
        load_study(str(file))


def test_a_file_that_cannot_run_in_a_worker_is_named(tmp_path):
    needs = StudyFile(str(tmp_path / "far.py"), "open(__file__ + '.csv')")
    with pytest.raises(UserError, match=r"far\.py cannot be read as Python: FileNotFoundError"):
        load_in_worker((needs,))


ENTRY_POINTS = """
[harness.methods]
plugged = made_plug:Plugged
lora = made_plug:Plugged
absent = made_plug_absent:Method
wrong = made_plug:VIT

[harness.datasets]
plugged-data = made_plug:Small

[harness.backbones]
plugged_vit = made_plug:VIT
vit_base_patch16_224 = made_plug:VIT

[harness.searches]
plugged = made_plug:start
tpe = made_plug:start
gone = made_plug:gone
"""

CODE = """
from harness.data.contract import DrawnDataset
from harness.datasets.synth_rs import SynthRS
from harness.baselines.tuning import BitFit
from harness.model.backbones import EMBEDDED
from harness.model.own import OwnBackbone
from timm.models.vision_transformer import VisionTransformer


class Plugged(BitFit):
    summary = "the biases again"


class Small(DrawnDataset):
    Options = SynthRS.Options
    summary = "synth-rs again"
    load = staticmethod(SynthRS.load)


def build(spec):
    return VisionTransformer(**{**EMBEDDED["vit_pico"], "depth": 2})


VIT = OwnBackbone(build=build, summary="two blocks", input_size=32)


def start(task):
    from harness.search.catalogue import find_search

    return find_search("random")(task)
"""


def install(folder, name, version="1.5", entry_points=ENTRY_POINTS):
    """What an installer leaves of a package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """An installed package; afterwards it is gone, and so is what was loaded from it."""
    install(tmp_path, "made_plug")
    (tmp_path / "made_plug.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (METHODS, DATASETS, BACKBONES):
        registry.names()
        for name in ("_entries", "_sources"):
            monkeypatch.setattr(registry, name, getattr(registry, name).copy())
        monkeypatch.setattr(registry, "_said", set())  # whatever was said in tests before
    yield tmp_path
    sys.modules.pop("made_plug", None)


def test_installed_names_are_found_and_one_that_is_broken_hurts_no_other(plug):
    request = {"backbone": "plugged_vit", "backbone.weights": "random", "data": "plugged-data"}
    request = TrialRequest().with_values({**request, "method": "plugged"}, source="test")
    assert "made_plug" not in sys.modules and "absent" in METHODS.names()
    spec = resolve(request, Runtime())
    assert (spec.method, spec.backbone.name) == ("plugged", "plugged_vit")
    assert [site.block for site, _ in spec.placement.items()] == [0, 1]
    assert METHODS.get("plugged").summary == "the biases again"
    assert {"plugged", "lora"} <= set(compared_methods("all"))
    for name, words in (
        (
            "absent",
            r"'absent' \(entry point made_plug_absent:Method, of distribution made_plug\) is in",
        ),
        (
            "wrong",
            r"'wrong' is OwnBackbone, not a class from PeftMethod; it is from made_plug 1\.5",
        ),
    ):
        with pytest.raises(UserError, match=words) as caught:
            METHODS.get(name)
        assert "\n" not in str(caught.value)


def test_what_is_built_in_keeps_its_name_and_says_so_once(plug, caplog):
    assert METHODS.get("lora").__module__ == "harness.baselines.lora"
    METHODS.get("lora")
    sentence = "Method 'lora' of made_plug 1.5 is not used: the name is built in."
    assert [record.message for record in caplog.records] == [sentence]
    assert BACKBONES.clashes() == [
        "Backbone 'vit_base_patch16_224' of made_plug 1.5 is not used: the name is built in."
    ]


def test_a_name_in_two_packages_is_refused_and_so_is_one_of_a_study_file(plug, tmp_path):
    install(tmp_path, "rival", entry_points="[harness.methods]\nplugged = made_plug:VIT\n")
    with pytest.raises(UserError, match=r"'plugged' is in .* 1\.5 and in .* 1\.5: uninstall one"):
        METHODS.get("plugged")
    (tmp_path / "studies").mkdir()
    with pytest.raises(UserError, match=r"own\.py: Method 'absent' is of made_plug 1\.5"):
        load_study(str(study_file(tmp_path / "studies", "absent")))


def test_lists_show_where_things_are_from(plug):
    found = {}
    for kind in ("methods", "datasets", "backbones", "searches"):
        run = CliRunner().invoke(main, ["list", kind])
        assert run.exit_code == 0, run.output
        found[kind] = " ".join(run.output.split())
    assert "the biases again (made_plug 1.5)" in found["methods"]
    assert (
        "'absent' (entry point made_plug_absent:Method, of distribution made_plug)"
        in found["methods"]
    )
    assert "Method 'lora' of made_plug 1.5 is not used" in found["methods"]
    assert "low-rank update of any linear map" in found["methods"]
    assert "synth-rs again (made_plug 1.5)" in found["datasets"]
    assert "two blocks (made_plug 1.5)" in found["backbones"]
    assert "plugged from made_plug 1.5" in found["searches"]
    assert "Search 'tpe' of made_plug 1.5 is not used" in found["searches"]
    assert "'gone' (entry point made_plug:gone, of distribution made_plug)" in found["searches"]


class HalfWay(PeftMethod[Frozen]):
    """Hooks one site, and then has no memory for the next."""

    Options = Frozen
    additive, positions, default_positions = True, ("mlp1",), ("mlp1",)

    def attach(self, model, placement, options, *, seed):
        model.blocks[0].register_forward_hook(lambda m, a, y: 2 * y)
        raise torch.OutOfMemoryError("out of memory")

    def expected_params(self, dims, placement, options):
        return 0


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("method", ["half-way", "lora+half-way"])
def test_a_method_that_fails_half_way_leaves_nothing_to_the_next_trial(monkeypatch, method):
    monkeypatch.setitem(METHODS._entries, "half-way", HalfWay)
    fine, bad = (
        resolve(FEW.with_values({"method": each}, source="test"), Runtime())
        for each in ("lora", method)
    )

    def scores():
        with attached(fine, Runtime()) as (classifier, prepared):
            few = prepared.split.test.subset(torch.arange(3))
            return classifier(normalised(few.plain(), prepared.dataset)).detach()

    before = scores()
    with pytest.raises(torch.OutOfMemoryError), attached(bad, Runtime()):
        pass
    assert torch.equal(scores(), before)
