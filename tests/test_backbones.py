"""Backbones: weights from files of any layout, presets, other families than plain ViTs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from support.weights import CPU, LAYOUTS, TWO_TOWERS, expected, images, of_file, random_state
from timm.layers import resample_abs_pos_embed

from harness.cli import main
from harness.cli.given import parse_settings
from harness.driver.setup import with_weights
from harness.errors import UserError
from harness.model.backbones import dims, features, load_backbone, try_weights
from harness.model.weight_files import sha256_of
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, TrialRequest

SHARED = Path(
    os.environ.get("HARNESS_TEST_DATA", Path(__file__).parent.parent.parent / "shared" / "data")
)
TINY_FILE = SHARED / "weights" / "vit_tiny_patch16_224.safetensors"

SMALL = BackboneSpec(name="test_vit", weights="random")
CLIP = BackboneSpec(name="vit_xsmall_patch16_clip_224", weights="random", img_size=32)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_keys_are_recognised(layout, tmp_path):
    state = random_state(SMALL)
    path = tmp_path / "w.pth"
    torch.save(LAYOUTS[layout](state), path)
    model = load_backbone(of_file(SMALL), CPU, path)
    assert torch.equal(features(model, images(160)), expected(SMALL, state, images(160)))
    fitted = try_weights(of_file(SMALL), path)
    assert fitted.unused == []
    assert bool(fitted.others) == (layout in TWO_TOWERS)


CLIP_NAMES = [
    ("patch_embed.proj", "conv1"),
    ("pos_embed", "positional_embedding"),
    ("cls_token", "class_embedding"),
    ("attn.qkv.", "attn.in_proj_"),
    ("attn.proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("norm_pre", "ln_pre"),
    ("norm1", "ln_1"),
    ("norm2", "ln_2"),
    ("norm.", "ln_post."),
    ("blocks.", "transformer.resblocks."),
]


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["visual.", "module.visual.", ""])
def test_clip_image_towers_are_recognised(prefix, tmp_path):
    state = random_state(CLIP)
    theirs = {"logit_scale": torch.ones(()), "transformer.resblocks.0.ln_1.weight": torch.ones(4)}
    if not prefix:
        theirs = {}
    for name, value in state.items():
        for ours, clip in CLIP_NAMES:
            name = name.replace(ours, clip)
        if name in ("class_embedding", "positional_embedding"):
            value = value.reshape(value.shape[1:] if "pos" in name else value.shape[2:])
        theirs[prefix + name] = value
    theirs[f"{prefix}proj"] = torch.ones(state["norm.weight"].shape[0], 7)
    safetensors.torch.save_file(theirs, tmp_path / "clip.safetensors")
    model = load_backbone(of_file(CLIP), CPU, tmp_path / "clip.safetensors")
    assert torch.equal(features(model, images(32)), expected(CLIP, state, images(32)))
    assert try_weights(of_file(CLIP), tmp_path / "clip.safetensors").words(tmp_path) == []


def test_positions_are_resampled_and_tokens_left_alone(tmp_path):
    state = random_state(SMALL)
    torch.save(state, tmp_path / "w.pth")
    small = of_file(SMALL).model_copy(update={"img_size": 96})
    got = load_backbone(small, CPU, tmp_path / "w.pth").state_dict()
    given = state["pos_embed"]
    class_token, grid = given[:, :1], given[:, 1:].unflatten(1, (10, 10)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    wanted = torch.cat([class_token, resized.flatten(2).transpose(1, 2)], dim=1)
    assert torch.allclose(got["pos_embed"], wanted, atol=1e-6)
    assert torch.equal(got["cls_token"], state["cls_token"])


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_the_patch_embedding_is_adapted_to_bands(bands, tmp_path):
    state = random_state(SMALL)
    torch.save(state, tmp_path / "w.pth")
    spec = of_file(SMALL).model_copy(update={"in_chans": bands})
    got = load_backbone(spec, CPU, tmp_path / "w.pth").patch_embed.proj.weight
    given = state["patch_embed.proj.weight"]
    wanted = {
        1: given.sum(1, keepdim=True),
        4: given[:, [0, 1, 2, 0]] * 3 / 4,
        13: given[:, [0, 1, 2] * 4 + [0]] * 3 / 13,
    }
    assert torch.allclose(got, wanted[bands], rtol=1e-6)


def test_weights_of_other_bands_say_which(tmp_path):
    spec = SMALL.model_copy(update={"in_chans": 13})
    torch.save(random_state(spec), tmp_path / "w.pth")
    load_backbone(of_file(spec), CPU, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"in_chans=13"):
        load_backbone(of_file(SMALL), CPU, tmp_path / "w.pth")


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_not_executed(zipped, tmp_path):
    path, target = tmp_path / "w.pth", tmp_path / "target"
    content = {"model": random_state(SMALL), "args": Payload(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"w\.pth are refused.*safetensors\.$"):
        load_backbone(of_file(SMALL), CPU, path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.read_text() == "executed"  # so the payload is one


def test_unexpected_tensors_are_named_and_heads_are_not(tmp_path):
    more = {"head.weight": torch.ones(2), "decoder_embed.bias": torch.ones(2)}
    torch.save({**random_state(SMALL), **more, "norm_pre.x": torch.ones(1)}, tmp_path / "w.pth")
    assert try_weights(of_file(SMALL), tmp_path / "w.pth").unused == ["norm_pre.x"]


def test_a_trial_knows_its_file_by_hash_and_not_by_path(tmp_path):
    torch.save(random_state(SMALL), tmp_path / "a.pth")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    torch.save(random_state(SMALL, seed=4), tmp_path / "c.pth")
    request = TrialRequest(backbone=of_file(SMALL))
    paths = [tmp_path / "a.pth", tmp_path / "elsewhere" / "b.pth", tmp_path / "c.pth"]
    one, same, other = (resolve(request, Runtime(weights=path)) for path in paths)
    assert one.trial_id == same.trial_id != other.trial_id
    assert one.backbone.sha256 == sha256_of(paths[0]) and str(tmp_path) not in one.model_dump_json()
    load_backbone(one.backbone, CPU, paths[1])
    with pytest.raises(UserError, match=r"c\.pth are not those of this trial"):
        load_backbone(one.backbone, CPU, paths[2])
    with pytest.raises(UserError, match="--weights"):
        resolve(request, Runtime())
    with pytest.raises(UserError, match=r"local file only.*--weights"):
        resolve(TrialRequest(backbone=BackboneSpec(name="satmae_vit_l16")), Runtime())


def test_the_flag_is_short_for_the_field(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(random_state(SMALL), path)
    by_flag = with_weights({"recipe.lr": 1}, str(path))
    assert by_flag == with_weights({"recipe.lr": 1, "backbone.weights": str(path)}, None)
    settings, file = by_flag
    assert file == path and settings == {
        "recipe.lr": 1,
        "backbone.weights": "file",
        "backbone.sha256": sha256_of(path),
    }
    assert with_weights({"backbone.weights": "random"}, None)[1] is None
    with pytest.raises(UserError, match="give one of them"):
        with_weights({"backbone.weights": "random"}, str(path))
    with pytest.raises(UserError, match=r"=b\.pth and --set backbone\.weights=a\.pth: give one of"):
        parse_settings(("backbone.weights=a.pth", "backbone.weights=b.pth"))


def test_fields_added_later_leave_identities_alone():
    spec = resolve(TrialRequest(), Runtime())
    assert spec.id_under(1) == "73d6f330e83bf8a2"
    for changed in ({"in_chans": 4}, {"frozen": "bf16"}):
        other = spec.backbone.model_copy(update=changed)
        assert spec.model_copy(update={"backbone": other}).trial_id != spec.trial_id


@pytest.mark.slow
def test_a_weights_file_is_tried_before_the_first_trial(tmp_path):
    def dry_run(content):
        torch.save(content, tmp_path / "w.pth")
        command = ["sweep", "--study", "depth_vs_position", "--smoke", "--dry-run"]
        command += ["--weights", str(tmp_path / "w.pth"), "--out", str(tmp_path / "runs")]
        return CliRunner().invoke(main, command)

    pico = random_state(BackboneSpec(weights="random"))
    result = dry_run({**pico, "more.of.it": torch.ones(1), "head.weight": torch.ones(1)})
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0].endswith("tensors not used: 1 (more.of.it).")
    result = dry_run(random_state(SMALL))
    assert result.exit_code == 2 and "they hold no patch_embed.proj.0.weight" in result.stderr
    assert "backbone 'vit_pico'" in result.stderr and "--set backbone=NAME" in result.stderr


@pytest.mark.skipif(not TINY_FILE.is_file(), reason=f"no {TINY_FILE}: set HARNESS_TEST_DATA")
def test_the_shipped_vit_tiny_loads_strict_and_resampled():
    spec = BackboneSpec(name="vit_tiny_local", weights="file")
    state = safetensors.torch.load_file(TINY_FILE)
    own = load_backbone(spec, CPU, TINY_FILE).state_dict()
    assert set(state) - set(own) == {"head.weight", "head.bias"} and set(own) <= set(state)
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    small = load_backbone(spec.model_copy(update={"img_size": 96}), CPU, TINY_FILE)
    wanted = resample_abs_pos_embed(state["pos_embed"], [6, 6])
    assert torch.equal(small.pos_embed, wanted)
    assert features(small, images(96)).shape == (2, 192)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,blocks,width,hidden,million",
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", 12, 768, 3072, 85.8),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", 12, 768, 3072, 85.8),
        ("vit_large_patch16_224", 24, 1024, 4096, 303.3),
        ("vit_huge_patch14_224", 32, 1280, 5120, 630.8),
        ("satmae_vit_l16", 24, 1024, 4096, 303.3),
        ("vit_tiny_local", 12, 192, 768, 5.5),
    ],
)
def test_presets_and_large_vits_have_their_sizes(name, blocks, width, hidden, million):
    sizes = dims(BackboneSpec(name=name))
    assert (sizes.num_blocks, sizes.width, sizes.blocks[0].hidden) == (blocks, width, hidden)
    assert sizes.num_params / 1e6 == pytest.approx(million, abs=0.05)
