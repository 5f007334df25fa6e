"""From a request to a spec in which every default is filled in.

Owns: sites, options and hashes of what a request asks for. Must not know: training, the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch

from harness.data.contract import drawn_bands, is_drawn, options_of
from harness.data.copies import pack_scale
from harness.data.pack_format import PackInfo, pack_folder
from harness.data.packed import PackRequest, pack_of
from harness.data.unpacked import Unpacked, look
from harness.errors import UserError, code_of, unknown
from harness.insertion.method import PeftMethod, get_method
from harness.model.backbones import BackboneInfo, backbone_info, refuse_bands
from harness.model.precision import check_weight_dtype
from harness.runner.runtime import Runtime
from harness.spec import (
    CHANGEABLE,
    Change,
    DataSpec,
    Frozen,
    Placement,
    Recipe,
    TrialRequest,
    TrialSpec,
    identity,
    parse_depth,
)

OptionsT = TypeVar("OptionsT", bound=Frozen)


def resolve(request: TrialRequest, runtime: Runtime) -> TrialSpec:
    """Fill in every default and turn positions and depth into sites.

    Raises:
        UserError: a name, option, position or depth that does not exist, or fits nothing.
    """
    check_weight_dtype(request.backbone.frozen)
    method = get_method(request.method)
    options = method.parse_options(request.options)
    backbone = backbone_info(request.backbone, runtime.weights)
    placement = _placement(request, backbone, method, options)
    # A combination with a part that gets no site says so here, before anything runs.
    with code_of(f"Method {request.method!r}", "expected_params"):
        method.expected_params(backbone.dims, placement, options)
    if request.backbone.frozen != "fp32" and method.needs_fp32(options):
        raise UserError(
            f"backbone.frozen={request.backbone.frozen}: method {request.method!r} with these "
            "options trains whole weights or computes with them; give backbone.frozen=fp32."
        )
    recipe = recipe_on(request.recipe, runtime)
    if request.backbone.frozen == "bf16" and recipe.eval_precision in ("fp32", "tf32"):
        raise UserError(
            f"recipe.eval_precision={recipe.eval_precision} has no effect with "
            "backbone.frozen=bf16, which computes in bf16: leave one of them out."
        )
    with code_of(f"Method {request.method!r}", "check_recipe"):
        method.check_recipe(recipe, options)
    return TrialSpec(
        method=request.method,
        options=identity(options),
        placement=placement,
        backbone=request.backbone.model_copy(update={"sha256": backbone.sha256}),
        data=_data(request, backbone, runtime),
        recipe=recipe,
        changes=tuple(_changes(request, placement, backbone, method, options)),
        seed=request.seed,
    )


def refuse_other_inputs(spec: TrialSpec, runtime: Runtime) -> None:
    """Whether data and weights are those of a resolved trial. Data is packed if need be.

    Without a data root, the pack that the trial was trained on will do.

    Raises:
        UserError: they are not there, or are others.
    """
    backbone = backbone_info(spec.backbone, runtime.weights)
    images = spec.data.sha256
    if images is not None and not _is_packed(spec.data, backbone, runtime):
        options = options_of(spec.data.name, spec.data.options)
        images = _pack(spec.data.name, options, spec.recipe, backbone, runtime).sha256
    for what, one, other in (
        ("weights of the backbone", spec.backbone.sha256, backbone.sha256),
        ("images", spec.data.sha256, images),
    ):
        if one != other:
            raise UserError(
                f"Trial {spec.trial_id} was trained with other {what} than are given here "
                f"(SHA-256 {str(one)[:12]}, not {str(other)[:12]})."
            )


def _is_packed(data: DataSpec, backbone: BackboneInfo, runtime: Runtime) -> bool:
    """Whether nothing says where the images are, and they are packed already."""
    if runtime.data_root is not None or data.sha256 is None:
        return False
    folder = pack_folder(Path(runtime.packs), data.name, backbone.input_size, data.sha256)
    return folder.is_dir()


def _pack(
    name: str, options: Frozen, recipe: Recipe, backbone: BackboneInfo, runtime: Runtime
) -> PackInfo | Unpacked:
    asked = PackRequest(
        name,
        options.model_dump_json(),
        backbone.input_size,
        runtime.data_root,
        runtime.packs,
        runtime.on_bad_image,
        pack_scale(recipe),
    )
    console = runtime.console
    return pack_of(asked, console) if runtime.packs_images else look(asked, console)


def _data(request: TrialRequest, backbone: BackboneInfo, runtime: Runtime) -> DataSpec:
    """All options of the dataset and, where it is read from files, the hash of its pack."""
    name, channels = request.data.name, request.backbone.in_chans
    options = options_of(name, request.data.options)
    sha256, bands = None, drawn_bands(name)
    if bands is not None:
        refuse_bands(request.backbone, name, bands)
    if not is_drawn(name):
        info = _pack(name, options, request.recipe, backbone, runtime)
        if info.channels != channels:
            raise UserError(
                f"Images of {name} have {info.channels} bands, and the backbone takes "
                f"{channels}: give --set backbone.in_chans={info.channels}, or "
                "choose other bands with data.options.bands."
            )
        sha256 = info.sha256
    return request.data.model_copy(update={"options": identity(options), "sha256": sha256})


def recipe_on(recipe: Recipe, runtime: Runtime) -> Recipe:
    """With the precision that `auto` is there; that of evaluation follows from it.

    Raises:
        UserError: evaluation in TF32 without a CUDA device.
    """
    on_gpu = torch.device(runtime.device).type == "cuda"
    if recipe.eval_precision == "tf32" and not on_gpu:
        raise UserError(
            f"recipe.eval_precision=tf32 is of CUDA devices, not of {runtime.device}: take fp32 or "
            "bf16."
        )
    if recipe.precision != "auto":
        return recipe
    return recipe.model_copy(update={"precision": "bf16" if on_gpu else "fp32"})


def _changes(
    request: TrialRequest,
    placement: Placement,
    backbone: BackboneInfo,
    method: PeftMethod[OptionsT],
    options: OptionsT,
) -> Iterator[Change]:
    if request.changes and method.wraps:
        raise UserError(f"changes: {request.method} learns its strengths; they cannot be set.")
    times = [change.after for change in request.changes]
    if times != sorted(set(times)) or any(time >= request.recipe.epochs for time in times):
        raise UserError(
            f"changes: write rising numbers of epochs below {request.recipe.epochs}, not {times}."
        )
    for change in request.changes:
        for field in change.values:
            if field not in CHANGEABLE:
                raise unknown("field in changes:", field, CHANGEABLE)
        request = request.with_values(change.values, source=f"changes after {change.after}")
        changed = _placement(request, backbone, method, options)
        if changed.root.keys() != placement.root.keys():
            raise UserError(f"changes after {change.after}: the sites must stay the same.")
        yield Change(after=change.after, placement=changed, lr=request.recipe.lr)


def _placement(
    request: TrialRequest, backbone: BackboneInfo, method: PeftMethod[OptionsT], options: OptionsT
) -> Placement:
    """The sites asked for, all of which the method can take on this backbone."""
    sizes, name = backbone.dims, backbone.name
    if method.adds_tokens and not sizes.is_sequence:
        raise UserError(
            f"Method {request.method!r} adds tokens, and {name!r} has no sequence that runs "
            "through all its blocks and that tokens can join: use it on a plain ViT."
        )
    allowed = method.positions_on(sizes, options)
    if not allowed and method.positions_with(options):
        raise UserError(
            f"Method {request.method!r} goes to {', '.join(method.positions_with(options))}, and "
            f"{name!r} has {', '.join(sizes.positions)} only."
        )
    if not method.additive and request.alpha != 1:
        raise UserError(f"Method {request.method!r} has no alpha: leave it at 1.")
    if not allowed:
        if request.positions is None and request.depth == "all" and request.placement is None:
            return Placement({})
        raise UserError(f"Method {request.method!r} has no sites: leave out positions and depth.")
    num_blocks = sizes.num_blocks
    placement = request.placement
    if placement is None:
        positions = request.positions or method.default_positions_on(sizes, options)
        if not positions:
            raise UserError(
                f"Backbone {name!r} has none of the default positions of {request.method!r}: name "
                f"some of {', '.join(allowed)}."
            )
        placement = Placement.of(positions, parse_depth(request.depth, num_blocks), request.alpha)
    for site, _ in placement.items():
        if site.position not in allowed:
            raise unknown(f"position for {request.method}:", site.position, allowed)
        if site.block >= num_blocks:
            raise UserError(f"Site {site} lies beyond the {num_blocks} blocks of the backbone.")
    if not method.additive and any(strength != 1 for _, strength in placement.items()):
        raise UserError(f"placement: method {request.method!r} has no alpha, so each must be 1.")
    if not placement.root and (method.wraps or method.adds_tokens):
        raise UserError(f"placement: method {request.method!r} needs a site, and there is none.")
    return placement
