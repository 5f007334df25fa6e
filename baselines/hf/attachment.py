"""A peft tuner beside the layers of a frozen model: y = f(x) + α·(T(x) - f(x)).

peft puts its layers in the places of a model's. Here they are put into a shell that holds nothing
but twins of the adapted layers, under the names that the model has for them, and join the model by
hooks, as every method's modules do: the model's own tree, tensors and names stay. Owns: the shell,
the start of each layer by (seed, site), what is kept of f(x), saving by peft. Must not know: which
tuner it is, training.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.baselines.hf.tuners import Tuner
from harness.errors import UserError
from harness.insertion.attachment import Attachment, Delta, Strength
from harness.model.blocks import Backbone
from harness.model.precision import is_full
from harness.spec import Site

ADAPTER = "default"
"""peft's name for a model's only adapter."""


def twin_of(layer: nn.Module) -> nn.Module:
    """The layer on the same memory, without its hooks.

    Its parameters are objects of their own, so that they stay in fp32 where the model's are held in
    bf16 for a while (`held_in_bf16`): some tuners compute with the weights themselves.
    """
    twin = copy.copy(layer)
    for name in vars(layer):
        if name.endswith("_hooks"):
            setattr(twin, name, OrderedDict())
    twin._parameters = {
        name: None if value is None else nn.Parameter(value.detach(), requires_grad=False)
        for name, value in layer._parameters.items()
    }
    return twin


class Remembered:
    """A frozen layer as a tuner calls it, which does not compute again what the model just has."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self._known: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def knowing(self, x: Tensor, result: Tensor) -> Iterator[None]:
        """For the time being, f(x) is known for this very `x`."""
        self._known = x, result
        try:
            yield
        finally:
            self._known = None

    def result(self, x: Tensor) -> Tensor:
        """f(x), to be read only."""
        if self._known is not None and x is self._known[0]:
            return self._known[1]
        found: Tensor = self.layer(x)
        return found

    def __call__(self, x: Tensor) -> Tensor:
        """f(x), which the caller may write over, as AdaLoRA does."""
        is_known = self._known is not None and x is self._known[0]
        return self.result(x).clone() if is_known else self.result(x)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["layer"], name)  # weight, bias and sizes


class Change(Delta):
    """T(x) - f(x) of a layer that peft has wrapped."""

    def __init__(self, tuned: nn.Module, frozen: nn.Module) -> None:
        super().__init__()
        self.frozen = Remembered(frozen)
        # Frozen parts, some of them shared by all layers, are held but are not submodules, so that
        # only what is trained is among the tensors of the attachment.
        self._held = {
            name: part
            for name, part in tuned._modules.items()
            if part is not None and not any(p.requires_grad for p in part.parameters())
        }
        for name, part in self._held.items():
            del tuned._modules[name]
            vars(tuned)[name] = self.frozen if name == "base_layer" else part
        self.tuned = tuned.eval()  # in training mode some draw random numbers even for no dropout

    def train(self, mode: bool = True) -> Change:
        super().train(mode)
        self.tuned.eval()
        return self

    @contextmanager
    def as_made(self) -> Iterator[None]:
        """For the time being, the layer is as peft has made it, its frozen parts among it."""
        self.tuned._modules.update(self._held)
        try:
            yield
        finally:
            for name in self._held:
                del self.tuned._modules[name]

    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        changed, plain = self.tuned(x), self.frozen.result(x)
        # Under autocast peft returns what x is stored in, and the layer itself what it computed in.
        difference: Tensor = (changed - plain).to(plain.dtype)
        return strength * difference


class PeftAttachment(Attachment):
    """The layers of one tuner. `peft` is its `PeftModel`, whose base model is the shell."""

    computes_on_weights = True

    def __init__(self, model: Backbone, tuner: Tuner, peft: Any) -> None:
        super().__init__(model)
        self._tuner = tuner
        self._peft = [peft]  # in a list, so that it is not registered as a submodule
        self._names: dict[Site, str] = {}

    @property
    def peft(self) -> Any:
        """The `PeftModel`."""
        return self._peft[0]

    def join(self, site: Site, name: str, layer: nn.Module, strength: Strength) -> None:
        """Add to a layer of the model what its namesake in the shell changes."""
        tuned = self.peft.base_model.model.get_submodule(name)
        change = Change(tuned, twin_of(layer))
        self.deltas[f"{site.block}:{site.position}"] = change
        self.strengths[site] = strength
        self._names[site] = name

        def add(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            # Whoever was hooked in front of this one may have added to f(x).
            if next(iter(module._forward_hooks)) != handle.id:
                return output + change(args[0], self.strengths[site])
            with change.frozen.knowing(args[0], output):
                return output + change(args[0], self.strengths[site])

        handle = layer.register_forward_hook(add, prepend=True)
        self.undo_by(handle)

    def save_pretrained(self, folder: Path) -> list[Path]:
        """Write the adapter by peft's own `save_pretrained`, strengths included.

        Raises:
            UserError: a strength other than 1, which this tuner has no setting for.
        """
        config = self.peft.peft_config[ADAPTER]
        saved = copy.copy(config)
        for name, value in self._scales(config).items():
            setattr(saved, name, value)
        if getattr(config, "rank_pattern", None) and hasattr(config, "target_r"):
            saved.rank_pattern = self._kept_ranks()
        self.peft.peft_config[ADAPTER] = saved
        with ExitStack() as stack:
            stack.callback(self.peft.peft_config.__setitem__, ADAPTER, config)
            for change in self.deltas.values():
                assert isinstance(change, Change)
                stack.enter_context(change.as_made())
            self.peft.save_pretrained(str(folder))
        return [folder / "adapter_config.json", folder / "adapter_model.safetensors"]

    def _scales(self, config: Any) -> dict[str, object]:
        """Fields of the configuration that say what the strengths do."""
        strengths = {self._names[site]: float(value) for site, value in self.strengths.items()}
        different = set(strengths.values())
        if different == {1.0}:
            return {}
        tuner, first = self._tuner, next(iter(different))
        if tuner.scale is None or (len(different) > 1 and not tuner.scale_by_site):
            which = "other than 1" if tuner.scale is None else "that differs by site"
            raise UserError(f"peft has no setting for a strength {which} of hf:{tuner.name}.")
        own = getattr(config, tuner.scale)
        if len(different) == 1:
            return {tuner.scale: own * first}
        return {"alpha_pattern": {name: own * value for name, value in strengths.items()}}

    def _kept_ranks(self) -> dict[str, list[bool]]:
        """Which ranks AdaLoRA has left, by the names of their tensors."""
        return {
            name: (value != 0).flatten().tolist()
            for name, value in self.peft.base_model.model.named_parameters()
            if name.endswith(f".lora_E.{ADAPTER}")
        }


def shell_of(layers: Mapping[str, nn.Module]) -> nn.Module:
    """Twins of layers alone, under their names in the model."""
    shell = nn.Module()
    for name, layer in layers.items():
        *path, leaf = name.split(".")
        parent = shell
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, twin_of(layer))
    return shell


def tuned(layers: Mapping[str, nn.Module], config: Any, start: Callable[[str], int]) -> Any:
    """A `PeftModel` whose base model is a shell of the layers.

    `start` gives the number that a layer's initial values are drawn from, by the layer's name.

    Raises:
        UserError: the layers' weights are stored in fewer than 32 bits.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING, get_peft_model

    if not all(is_full(value) for layer in layers.values() for value in layer.parameters()):
        raise UserError("hf methods compute with the weights, so they need backbone.frozen=fp32.")
    kind = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]

    class Seeded(kind):  # type: ignore[misc, valid-type]
        """Draws each layer's values from a number of its own, not from where torch stands."""

        def _create_and_replace(self, *args: Any, current_key: str, **rest: Any) -> None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(start(current_key))
                super()._create_and_replace(*args, current_key=current_key, **rest)

    PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type] = Seeded
    try:
        with warnings.catch_warnings():
            # Of timm's own class of LayerNorm, whose sizes peft does not need.
            warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
            return get_peft_model(shell_of(layers), config)
    finally:
        PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type] = kind
