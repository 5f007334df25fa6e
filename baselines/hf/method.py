"""Tuners of Hugging Face peft as methods of this package, one for each row of `tuners.TUNERS`.

Owns: their registration, and from options to peft's configuration. Must not know: how a tuner
computes, training. peft is imported when a tuner is attached, not before.
"""

from __future__ import annotations

import importlib.util
import re
from contextlib import ExitStack
from typing import Any, ClassVar

from pydantic import JsonValue
from torch import nn

from harness.baselines.hf.attachment import PeftAttachment, tuned
from harness.baselines.hf.ranks import RankAllocation
from harness.baselines.hf.tuners import TUNERS, Tuner
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.hooks import TrainingHook
from harness.insertion.method import METHODS, PeftMethod
from harness.model.blocks import Backbone, Dims, branch_at, layer_at, make_called
from harness.rng import generator
from harness.spec import SUB_BLOCK_POSITIONS, Frozen, Placement, Site


class _Allocated(PeftAttachment):
    """AdaLoRA's layers, whose ranks move."""

    options: Frozen

    def training_hook(self) -> TrainingHook:
        return RankAllocation(self.peft.base_model, self.options)


class HuggingFaceTuner(PeftMethod[Frozen]):
    """y = f(x) + α·(T(x) - f(x)), where T is a layer as a tuner of peft has changed it."""

    tuner: ClassVar[Tuner]
    additive = True
    in_all = False

    def parse_options(self, options: dict[str, JsonValue]) -> Frozen:
        if importlib.util.find_spec("peft") is None:
            raise UserError(
                f"Method 'hf:{self.tuner.name}' is one of Hugging Face peft's: install it with "
                "`pip install 'peft-hpo-harness[hf]'`."
            )
        return super().parse_options(options)

    def needs_fp32(self, options: Frozen) -> bool:
        return True

    def attach(
        self, model: Backbone, placement: Placement, options: Frozen, *, seed: int
    ) -> Attachment:
        names = {id(part): name for name, part in model.named_modules()}
        layers = {site: _layer_at(model, site) for site, _ in placement.items()}
        sites = {names[id(layer)]: site for site, layer in layers.items()}

        def start(name: str) -> int:
            return generator(seed, "init", f"hf:{self.tuner.name}", sites[name]).initial_seed()

        with ExitStack() as undoing:
            for site in layers:
                if undo := make_called(model, site):
                    undoing.callback(undo)
            by_name = {name: layers[site] for name, site in sites.items()}
            peft = tuned(by_name, self._config(sites, options), start)
            attachment = self._attachment(model, peft, options)
            attachment.undo_with(undoing.pop_all().close)
        for name, site in sites.items():
            attachment.join(site, name, layers[site], placement.root[str(site)])
        return attachment

    def _attachment(self, model: Backbone, peft: Any, options: Frozen) -> PeftAttachment:
        if self.tuner.config != "AdaLoraConfig":
            return PeftAttachment(model, self.tuner, peft)
        attachment = _Allocated(model, self.tuner, peft)
        attachment.options = options
        return attachment

    def _config(self, sites: dict[str, Site], options: Frozen) -> Any:
        """peft's configuration for layers of these names."""
        import peft

        fields = self.tuner.fields(options)
        # Written as patterns of whole names: peft shortens long lists by what the shell lacks.
        fields["target_modules"] = _pattern(list(sites))
        if self.tuner.config == "IA3Config":
            scaled = [name for name, site in sites.items() if site.position == "mlp2"]
            fields["feedforward_modules"] = _pattern(scaled)
        if self.tuner.config == "AdaLoraConfig":
            fields.update(tinit=0, tfinal=0, total_step=1)  # until the training's length is known
        if self.tuner.config == "BOFTConfig":
            _without_extension()
        return getattr(peft, self.tuner.config)(**fields)

    def expected_params(self, dims: Dims, placement: Placement, options: Frozen) -> int:
        """The sum over the sites of what one has (`Tuner.count`).

        Raises:
            UserError: the backbone has no linear layers of its own there.
        """
        if "dw" in dims.positions:
            raise UserError(
                f"Method 'hf:{self.tuner.name}' goes to the linear layers of a ViT or a Swin: "
                "ConvNeXt has maps of channels."
            )
        total = 0
        for site, _ in placement.items():
            layer = dims.layers.get(site.position, "")
            if layer.endswith("]"):  # some of its columns
                raise UserError(
                    f"Method 'hf:{self.tuner.name}' changes whole layers, and {site.position} is "
                    f"{layer} in this backbone: leave it out."
                )
            total += self.tuner.count(site, *dims.linear_io(site), options)
        return total


def _layer_at(model: Backbone, site: Site) -> nn.Module:
    """The linear layer of a site; of a branch, the LayerNorm that it begins with."""
    return (
        branch_at(model, site)[0] if site.position in SUB_BLOCK_POSITIONS else layer_at(model, site)
    )


def _pattern(names: list[str]) -> str:
    return "|".join(re.escape(name) for name in names)


def _without_extension() -> None:
    """Keep BOFT from compiling a CUDA extension, which one factor does not need."""
    from peft.tuners.boft import layer

    if layer._FBD_CUDA is None:
        layer._FBD_CUDA = False


for _tuner in TUNERS:
    METHODS.register(f"hf:{_tuner.name}")(
        type(
            f"HF_{_tuner.name}",
            (HuggingFaceTuner,),
            {
                "__module__": __name__,
                "__doc__": f"{_tuner.summary}.",
                "tuner": _tuner,
                "Options": _tuner.make_options(),
                "positions": _tuner.positions,
                "default_positions": _tuner.default_positions,
                "summary": _tuner.summary,
            },
        )
    )
