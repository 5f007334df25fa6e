"""Files of weights that are not what they are taken for: each is refused by its actual cause."""

from __future__ import annotations

import gzip
import json
import os
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from support.cli import harness
from support.weights import CPU, of_file, random_state

from harness.errors import UserError
from harness.model.backbones import load_backbone, try_weights
from harness.spec import BackboneSpec

SMALL = BackboneSpec(name="test_vit", weights="random")
PARTS = (0.0005, 0.5, 0.999)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def foreign_files(state, folder):
    (folder / "text").write_text("not weights")
    (folder / "empty").write_bytes(b"")
    (folder / "pointer").write_bytes(LFS)
    (folder / "page").write_text("\n<!DOCTYPE html><html>404</html>")
    (folder / "gzip").write_bytes(gzip.compress(b"weights"))
    (folder / "index").write_text(json.dumps({"weight_map": {}}))
    np.savez(folder / "arrays.npz", w=np.ones(3))
    with zipfile.ZipFile(folder / "program", "w") as archive:  # as torch.jit.save names its parts
        for part in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"program/{part}", b"")
    torch.save([1, 2], folder / "list")
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, folder / "no tensors")
    safetensors.torch.save_file(state, folder / "whole.safetensors")
    torch.save(state, folder / "whole.pth")
    torch.save(state, folder / "whole.old", _use_new_zipfile_serialization=False)
    for name in ("whole.safetensors", "whole.pth", "whole.old"):
        content = (folder / name).read_bytes()
        for part in PARTS:
            (folder / f"{name} to {part}").write_bytes(content[: int(part * len(content))])


CUT = [
    f"whole.{kind} to {part}" for kind in ("safetensors", "pth") for part in (0.0005, 0.5, 0.999)
]


def other_models(state, folder):
    torch.save({f"x{k}": v for k, v in state.items()}, folder / "unknown keys")
    torch.save({k: v for k, v in state.items() if "blocks.5" not in k}, folder / "short")
    torch.save(random_state(BackboneSpec(weights="random")), folder / "pico")
    wide = BackboneSpec(name="vit_xsmall_patch16_clip_224", weights="random")
    torch.save(random_state(wide), folder / "wide")


def other_values(state, folder):
    def save(name, changed):
        torch.save({**state, "blocks.1.mlp.fc1.weight": changed}, folder / name)

    weight = state["blocks.1.mlp.fc1.weight"]
    broken = weight.clone()
    broken[3, 4] = float("nan")
    save("nan", broken)
    save("inf", weight / 0)
    save("int8", (100 * weight).to(torch.int8))
    save("float8", weight.to(torch.float8_e4m3fn))
    save("sparse", weight.to_sparse())
    save("meta", weight.to("meta"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    state = random_state(SMALL)
    for make in (foreign_files, other_models, other_values):
        make(state, folder)
    return folder


@pytest.mark.parametrize(
    "name,words",
    [
        ("absent", ["cannot be read", "No such file"]),
        ("text", ["neither safetensors nor"]),
        ("index", ["neither safetensors nor"]),
        ("empty", ["are an empty file"]),
        ("pointer", ["git-lfs pointer", "`git lfs pull`"]),
        ("page", ["a web page"]),
        ("gzip", ["unpack it"]),
        ("arrays.npz", ["zip archive, such as npz"]),
        ("program", ["TorchScript", "state_dict"]),
        ("list", ["hold a list"]),
        ("no tensors", ["no tensors at any level (epoch, args)", "state_dict"]),
        *[(name, ["cut off or damaged"]) for name in CUT],
        ("whole.old to 0.0005", ["broken"]),
        ("whole.old to 0.5", ["broken"]),
        ("unknown keys", ["patch_embed.proj.weight", "xcls_token", "backbone 'test_vit'"]),
        ("short", ["12 of its", "blocks.5.norm1.weight"]),
        ("pico", ["patch_embed.proj.weight", "patch_embed.proj.0.weight"]),
        ("wide", ["[256, 3, 16, 16] there", "[64, 3, 16, 16] in it", "--set backbone=NAME"]),
        ("nan", ["blocks.1.mlp.fc1.weight", "not finite"]),
        ("inf", ["blocks.1.mlp.fc1.weight", "not finite"]),
        ("int8", ["blocks.1.mlp.fc1.weight", "as int8", "scale"]),
        ("float8", ["as float8_e4m3fn", "scale"]),
        ("sparse", ["save it dense"]),
        ("meta", ["without its values"]),
    ],
)
def test_wrong_files_are_refused_by_their_actual_cause(name, words, files):
    with pytest.raises(UserError) as caught:
        load_backbone(of_file(SMALL), CPU, files / name)
    message = str(caught.value)
    assert str(files / name) in message and "\n" not in message and len(message) < 600
    assert all(word in message for word in words), message


def test_a_file_that_contains_itself_is_searched_all_the_same(tmp_path):
    state = random_state(SMALL)
    content = {"deep": {"state_dict": state}}
    content["deep"]["again"] = content
    torch.save(content, tmp_path / "w.pth")
    assert try_weights(of_file(SMALL), tmp_path / "w.pth").unused == []


def test_the_tower_that_was_taken_is_said_where_there_are_several(tmp_path):
    state = random_state(SMALL)
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    path = tmp_path / "w.pth"
    torch.save({"state_dict_ema": zeros, "state_dict": state, "last": {"m": zeros}}, path)
    assert try_weights(of_file(SMALL), path).words(path) == [
        f"Weights {path} hold several image towers: state_dict is used, not state_dict_ema, last.m."
    ]


def test_a_sound_file_is_not_blamed_for_a_size_that_no_image_can_have(files):
    spec = of_file(SMALL).model_copy(update={"img_size": 8})
    with pytest.raises(UserError) as caught:
        load_backbone(spec, CPU, files / "whole.pth")
    assert str(caught.value).startswith("backbone.img_size=8: no patch of 'test_vit' fits")


def test_the_command_line_names_the_backbone_and_the_remedy(files, tmp_path):
    command = ["sweep", "--study", "depth_vs_position", "--smoke", "--dry-run", "--weights"]
    result = harness(*command, files / "whole.safetensors", "--out", tmp_path)
    assert result.exit_code == 2 and "backbone 'vit_pico'" in result.stderr
    assert "--set backbone=NAME" in result.stderr and result.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []
