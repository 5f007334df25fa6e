"""An exported classifier: a checkpoint that timm computes the same with, and predictions by it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.backbones import BACKBONES
from support.cli import harness
from support.exports import code_of, rows_of
from support.few import FEW
from support.images import listed, packed, picture, tree
from support.methods import fill, setting
from support.records import TINY
from support.runs import RESULTS, made_run, study

from harness.console import SILENT
from harness.errors import UserError
from harness.export.about import About, Head, Normalisation, read_about, timm_config
from harness.export.merged import export_merged
from harness.export.predict import Exported, classifier_of, load_export, predictions, write_csv
from harness.export.readme import of_weights
from harness.export.trial import export_weights
from harness.metrics import unpack_hits
from harness.model.backbones import load_backbone
from harness.runner.prepare import dataset_of
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec, DataSpec
from harness.store.store import Store

SMALL = {
    **BACKBONES,
    "ViT-Ti/16": BackboneSpec(name="vit_tiny_patch16_224", weights="random", img_size=32),
}


def made_about(
    backbone, method="lora", head="cosine", classes=("a", "b", "c"), alpha=2.0, **options
):
    """An export of a model whose tensors are random, with its state."""
    chosen, placement, parsed = setting(
        method, backbone, blocks=[0, 1], alpha=alpha, options=options
    )
    request = TINY.with_values({"recipe.head": head}, source="test")
    spec = resolve(request, Runtime()).model_copy(
        update={
            "method": method,
            "backbone": backbone,
            "placement": placement,
            "options": parsed.model_dump(mode="json"),
        }
    )
    size = backbone.img_size or 32
    known = About(
        trial_id=spec.trial_id,
        spec=spec,
        learned=None,
        classes=classes,
        normalisation=Normalisation(size=size, resize=size, mean=(0.5,) * 3, std=(0.5,) * 3),
        head=Head(type=head, scale=25.0 if head == "cosine" else None),
        test={"micro": 50.0, "class_mean": 50.0},
    )
    model = load_backbone(backbone, torch.device("cpu"))
    attachment = chosen.attach(model, placement, parsed, seed=0)
    fill(attachment)
    width = 3 * torch.randn(len(classes), model.num_features)
    state = {f"attachment.{k}": v.clone() for k, v in attachment.state_dict().items()}
    state |= {"head.weight": width}
    state |= {"head.bias": torch.randn(len(classes))} if head == "linear" else {}
    return known, state


@pytest.mark.parametrize(
    "backbone,method,head",
    [
        ("vit_pico", "lora", "cosine"),
        ("ViT-Ti/16", "lora", "linear"),
        ("ViT-Ti/16", "bitfit", "cosine"),
        ("ConvNeXt-V2-A", "linear_probe", "linear"),
        ("Swin", "lora", "cosine"),
    ],
)
def test_timm_computes_the_same_with_a_merged_checkpoint(tmp_path, backbone, method, head):
    known, state = made_about(SMALL[backbone], method, head)
    view = torch.randint(0, 256, (4, 3, *[known.normalisation.size] * 2), dtype=torch.uint8)
    classifier = classifier_of(known, state, torch.device("cpu"), None)
    with torch.no_grad():
        wanted = classifier((view.float() - 127.5) / 127.5)
    classifier.attachment.detach()
    export_merged(known, state, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["pretrained_cfg"]["label_names"] == ["a", "b", "c"]
    code = code_of(tmp_path / "m")
    if backbone == "vit_pico":  # the embedded backbone is not among timm's
        scope = {}
        start = code.index("model = VisionTransformer")
        exec(
            "from timm.models.vision_transformer import VisionTransformer\n"
            "from harness.model.backbones import EMBEDDED\n" + code[start:].partition("\n")[0],
            scope,
        )
        model = scope["model"]
        model.load_state_dict(load_file(tmp_path / "m" / "model.safetensors"))
    elif backbone == "Swin":  # a test's own, which reads no files
        model = timm.create_model(config["architecture"], **config["model_args"])
        model.load_state_dict(load_file(tmp_path / "m" / "model.safetensors"))
    else:
        model = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True)
    with torch.no_grad():
        x = (view.float() - 127.5) / 127.5
        found = model.eval().forward_head(model.forward_features(x), pre_logits=True)
        if head == "cosine":
            found = torch.nn.functional.normalize(found)
        found = model.get_classifier()(found)
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-3)
    if head == "linear":
        assert torch.allclose(model(x), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["adapter", "vpt_deep"])
def test_what_is_no_linear_map_is_not_merged(tmp_path, method):
    known, state = made_about(BACKBONES["vit_pico"], method)
    with pytest.raises(UserError, match="Only low-rank"):
        export_merged(known, state, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_model_of_two_heads_takes_no_merged_one(tmp_path):
    backbone = BackboneSpec(name="deit_tiny_distilled_patch16_224", weights="random", img_size=32)
    known, state = made_about(backbone)
    with pytest.raises(UserError, match=r"has two heads.*use `harness export` without --merged"):
        export_merged(known, state, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.fixture
def exported(tmp_path):
    """A folder as `export --weights` writes it."""
    known, state = made_about(BACKBONES["vit_pico"])
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "adapter.json").write_text(known.model_dump_json())
    save_file(state, folder / "weights.safetensors")
    return folder


def predict(exported, tmp_path, images, *words):
    table = tmp_path / "out.csv"
    return harness("predict", exported, images, "--out", table, *words), table


@pytest.mark.parametrize("backbone", ["vit_pico", "convnext_atto"])  # of which one takes any size
def test_drawn_images_are_predicted_as_they_were_tested(few_images, tmp_path, backbone):
    values = {"backbone.name": backbone, "depth": "all"}
    spec = resolve(FEW.with_values(values, source="test"), Runtime())
    store, images = Store(tmp_path / "store"), tmp_path / "images"
    record = run_trial(spec, Runtime(keep_weights=True), store)
    dataset = dataset_of(spec, "")
    for number, pixels in enumerate(dataset.test.plain()):
        folder = images / dataset.classes[dataset.test.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:03}.png")
    export_weights(record, store, tmp_path / "e")
    assert "the short side is reduced to 32" in (tmp_path / "e" / "README.md").read_text()
    assert timm_config(read_about(tmp_path / "e"), "x", 1)["pretrained_cfg"]["crop_pct"] == 1
    found = sorted(  # class by class, and in the order of the split
        predictions(load_export(tmp_path / "e"), images),
        key=lambda each: (dataset.classes.index(each.label), each.path),
    )
    hits = unpack_hits(record.test.hits, len(dataset.test)).tolist()
    assert [each.predicted == each.label for each in found] == hits and any(hits)
    edited(tmp_path / "e", normalisation__size=64, normalisation__resize=64)
    with pytest.raises(UserError, match=r"its normalisation\.size is not that of trial"):
        read_about(tmp_path / "e")


def test_images_without_classes_have_no_label(exported, tmp_path):
    tree(tmp_path / "d", {"holiday": 2, "x/b/y": 1})
    result, table = predict(exported, tmp_path, tmp_path / "d")
    assert result.exit_code == 0, result.output
    rows = rows_of(table)
    assert [(row["path"], row["label"]) for row in rows] == [
        ("holiday/0.png", ""),
        ("holiday/1.png", ""),
        ("x/b/y/0.png", "b"),
    ]
    assert (
        "3 images. Right are" in result.stdout and "of the 1 whose class is known" in result.stdout
    )
    result, table = predict(exported, tmp_path, tmp_path / "d" / "holiday" / "1.png")
    (alone,) = rows_of(table)
    for name in rows[1].keys() - {"path"}:  # in a batch of its own, so equal but for rounding
        same = alone[name] == rows[1][name]
        assert same or float(alone[name]) == pytest.approx(float(rows[1][name]), rel=1e-4), name


def test_an_image_that_cannot_be_read_stops_or_is_left_out(exported, tmp_path):
    tree(tmp_path / "d", {"a": 3})
    (tmp_path / "d" / "a" / "1.png").write_bytes(b"no image")
    result, table = predict(exported, tmp_path, tmp_path / "d")
    assert result.exit_code == 2 and "--on-bad-image skip" in result.stderr
    assert not table.exists() and not [*tmp_path.glob("*.part")]
    result, table = predict(exported, tmp_path, tmp_path / "d", "--on-bad-image", "skip")
    assert result.exit_code == 0 and "1 images cannot be read" in result.stderr
    assert [row["path"] for row in rows_of(table)] == ["a/0.png", "a/2.png"]


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda e, d: (e / "adapter.json").unlink(), "no exported classifier"),
        (lambda e, d: (e / "adapter.json").write_text("{}"), "another version"),
        (lambda e, d: (e / "weights.safetensors").unlink(), "has no weights.safetensors"),
        (lambda e, d: (e / "weights.safetensors").write_bytes(b"x" * 20), "is damaged"),
        (lambda e, d: save_file({"x": torch.ones(1)}, e / "weights.safetensors"), "not those of"),
        (lambda e, d: (d / "a" / "0.png").unlink(), "There is no image"),
        (lambda e, d: d.rename(d.parent / "elsewhere"), "neither a folder nor an image"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(exported, tmp_path, change, words):
    change(exported, tree(tmp_path / "d", {"a": 1}))
    result, table = predict(exported, tmp_path, tmp_path / "d")
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert result.stderr.strip().count("\n") == 0 and not table.exists()


def test_a_split_is_of_images_on_disk(exported, tmp_path):
    result, _ = predict(exported, tmp_path, tmp_path, "--split", "test")
    assert result.exit_code == 2 and "synth-rs is drawn" in result.stderr


def test_a_split_of_other_images_than_were_trained_on_is_refused(tmp_path):
    """One more image moves others from one part of a drawn split into another."""
    root = tree(tmp_path / "images", {"a": 6, "b": 6})
    pack = packed(root, tmp_path / "packs", size=32)
    known, state = made_about(SMALL["ViT-Ti/16"], classes=("a", "b"))
    data = DataSpec(name="folder", sha256=pack.info.sha256)
    known = known.model_copy(
        update={"spec": known.spec.model_copy(update={"data": data}), "listed": pack.info.listed}
    )
    there = torch.device("cpu")
    classifier = classifier_of(known, state, there, None)

    def found(about):
        exported = Exported(about=about, classifier=classifier, device=there)
        notes = []
        console = SimpleNamespace(warn=notes.append, progress=SILENT.progress)
        split = predictions(exported, root, split="test", console=console)
        return [each.path for each in split], notes

    wanted = [item.path for item in listed(root).test]
    assert found(known) == (wanted, [])
    older, notes = found(known.model_copy(update={"listed": None}))
    assert older == wanted and "does not know which images" in notes[0]
    picture(99).save(root / "a" / "99.png")
    with pytest.raises(UserError, match="has other images than trial"):
        found(known)


def test_weights_that_nothing_reads_are_refused(exported, tmp_path):
    result, _ = predict(exported, tmp_path, tmp_path, "--weights", tmp_path / "w.safetensors")
    assert result.exit_code == 2 and "had its weights from no file" in result.stderr


def edited(exported, **changes):
    path = exported / "adapter.json"
    known = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = known
        for each in parents:
            node = node[each]
        node[last] = value
    path.write_text(json.dumps(known))


EDITS = {
    "another trial": {"trial_id": "0" * 16},
    "another strength": {"spec__placement": {"0.q": 9.0}},
    "no such block": {"spec__placement": {"99.q": 1.0}},
    "a class twice": {"classes": ["a", "a", "b"]},
    "no classes": {"classes": []},
    "no size": {"normalisation__size": 0},
    "another size": {"normalisation__size": 64},
    "another cut": {"normalisation__resize": 3},
    "four means": {"normalisation__mean": [0.5] * 4},
    "four deviations": {"normalisation__std": [0.5] * 4},
    "division by zero": {"normalisation__std": [0.0, 0.5, 0.5]},
    "two bands": {"normalisation__bands": [0, 1]},
    "another head": {"head__type": "linear", "head__scale": None},
    "another scale": {"head__scale": 1.0},
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_export_is_not_used(exported, tmp_path, case):
    tree(tmp_path / "d", {"a": 1})
    edited(exported, **EDITS[case])
    result, table = predict(exported, tmp_path, tmp_path / "d")
    assert result.exit_code == 2 and "adapter.json is not used: its " in result.stderr
    assert result.stderr.count("\n") == 1 and not table.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "int8"])
def test_tensors_that_training_cannot_give_are_refused(exported, tmp_path, value):
    tree(tmp_path / "d", {"a": 1})
    path = exported / "weights.safetensors"
    state = load_file(path)
    if value == "int8":
        state["head.weight"] = state["head.weight"].to(torch.int8)
    else:
        state["head.weight"][0, 0] = value
    save_file(state, path)
    result, table = predict(exported, tmp_path, tmp_path / "d")
    assert result.exit_code == 2 and "head.weight is not all finite numbers" in result.stderr
    assert not table.exists()


def test_predictions_replace_predictions_alone(exported, tmp_path):
    image = tree(tmp_path / "d", {"a": 1}) / "a" / "0.png"
    for path in (image, exported / "adapter.json", exported / "weights.safetensors"):
        before = path.read_bytes()
        result = harness("predict", exported, image, "--out", path)
        assert result.exit_code == 2 and "other than predictions" in result.stderr
        assert path.read_bytes() == before
    (tmp_path / "out.csv").write_text("")
    for _ in range(2):
        result, table = predict(exported, tmp_path, image)
        assert result.exit_code == 0 and len(rows_of(table)) == 1


@pytest.mark.parametrize("place", [".", "/", "there"])
def test_predictions_are_a_file_and_no_folder(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=rf"^--out {re.escape(place)} is a folder: name a file in"):
        write_csv(Path(place), ("a", "b"), [])
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize(
    "flags", [("csv", "parquet"), ("weights", "peft"), ("best", "merged"), ("csv", "tensorboard")]
)
def test_two_exports_of_one_place_are_refused(tmp_path, flags):
    made_run(tmp_path / "r", study(), RESULTS)
    words = [word for flag in flags for word in (f"--{flag}", tmp_path / "x" / ".." / "same")]
    words[-1] = tmp_path / "same"
    result = harness("export", "made", *words, "--out", tmp_path / "r")
    assert result.exit_code == 2 and "are both of" in result.stderr, result.output
    assert not (tmp_path / "same").exists()


def test_the_readme_of_what_a_study_file_registers_names_the_file():
    known, _ = made_about(SMALL["ViT-Ti/16"])
    assert "study" not in of_weights(known)
    own = known.model_copy(update={"spec": known.spec.model_copy(update={"method": "mine"})})
    text = of_weights(own)
    assert 'load_study("FILE")' in text and "`harness predict . IMAGES --study FILE`" in text


@pytest.mark.parametrize("flag", ["best", "weights", "peft", "merged"])
def test_a_readme_of_something_else_is_kept(tmp_path, flag):
    made_run(tmp_path / "r", study(), RESULTS)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("mine")
    result = harness("export", "made", f"--{flag}", tmp_path / "own", "--out", tmp_path / "r")
    assert result.exit_code == 2 and "README.md is of something else" in result.stderr
    assert [each.read_text() for each in (tmp_path / "own").iterdir()] == ["mine"]
