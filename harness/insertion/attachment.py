"""What a method adds to a frozen model: modules at sites, attached by hooks and removed again.

Owns: hooks on the model, strengths and the arithmetic of a site. Must not know: which method this
is, or how it is trained.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.errors import UserError, unknown
from harness.insertion.hooks import TrainingHook, joined
from harness.insertion.joining import Term, added
from harness.model.blocks import (
    Backbone,
    blocks_of,
    branch_at,
    columns_at,
    layer_at,
    make_called,
    rotary_parts,
)
from harness.model.precision import is_full
from harness.spec import Placement, Site

Strength = float | Tensor


Form = Literal["parallel", "sequential"]


class Delta(nn.Module, ABC):
    """One additive module: called with `(x, strength)`, it returns `strength * Δ(x)` (Eq. 2)."""

    @abstractmethod
    def forward(self, x: Tensor, strength: Strength) -> Tensor:
        """`[n, t, d_in]` -> `[n, t, d_out]`; features are the last dimension of a map too."""

    has_halves: ClassVar[bool] = False
    """`halves` say all that `forward` does."""

    def __init_subclass__(cls, **rest: object) -> None:
        super().__init_subclass__(**rest)
        if "halves" in vars(cls) or "forward" in vars(cls):
            cls.has_halves = "halves" in vars(cls)  # else they are of another forward

    def __call__(self, x: Tensor, strength: Strength) -> Tensor:
        result: Tensor = super().__call__(x, strength)
        return result

    def halves(self, x: Tensor, strength: Strength) -> tuple[Tensor, Tensor]:
        """`narrow` `[n, t, r]` and B `[d_out, r]`, of a Δ where strength · Δ(x) is narrow @ Bᵀ.

        Where a class has them, the product is added to a layer's output in one step, and `forward`
        is not called.
        """
        raise NotImplementedError

    def low_rank(self) -> tuple[Tensor, Tensor, float] | None:
        """A `[r, d_in]`, B `[d_out, r]` and c where Δ(x) = c·BAx, else None."""
        return None

    def rate_factors(self) -> Mapping[nn.Parameter, float]:
        """What the recipe's learning rate is multiplied by for some of its tensors."""
        return {}


class LowRank(NamedTuple):
    """scale · up @ down, which joins the linear map at its input (parallel) or its output."""

    down: Tensor
    up: Tensor
    scale: float
    form: Form


class Attachment(nn.Module):
    """What a method added to a model: its trainable tensors, and how to remove them again.

    `parameters()` and `state_dict()` hold the PEFT tensors only, never a frozen one.
    """

    computes_on_weights: ClassVar[bool] = False
    """A pass also computes with weights alone, once for all images of its batch."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self._model = [model]  # in a list, so that it is not registered as a submodule
        self._undo: list[Callable[[], None]] = []
        self._forms: dict[Site, Form] = {}
        self._columns: dict[Site, tuple[int, int]] = {}
        self._joins: dict[nn.Module, functools.partial[Tensor]] = {}
        self.strengths: dict[Site, Strength] = {}
        self.deltas = nn.ModuleDict()
        self.prompts = nn.ParameterDict()
        self.replaced = nn.ParameterDict()

    @property
    def model(self) -> Backbone:
        return self._model[0]

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def undo_by(self, handle: RemovableHandle) -> None:
        """Remove a hook on the model at `detach`."""
        self.undo_with(handle.remove)

    def undo_with(self, undo: Callable[[], None]) -> None:
        """Call this at `detach`, after what undoes later changes."""
        self._undo.append(undo)

    def add_delta(self, site: Site, delta: Delta, strength: Strength, form: Form) -> None:
        """Add Δ at a site: `y = f(x) + strength * Δ(x)`, or `Δ(f(x))` when `form` is sequential.

        Raises:
            UserError: there is no such form.
        """
        if form not in get_args(Form):
            raise unknown("form of a Δ:", str(form), get_args(Form))
        self.deltas[f"{site.block}:{site.position}"] = delta.to(self._device)
        self.strengths[site] = strength
        self._forms[site] = form
        if site.position in ("attn", "ffn"):
            self._hook_sub_block(site, delta, form)
        else:
            self._hook_linear(site, delta, form)

    def _hook_linear(self, site: Site, delta: Delta, form: Form) -> None:
        """Join a layer's output, in one hook for all sites of the layer: q, k and v share one."""
        layer = layer_at(self.model, site)

        def add_to_map(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            x = (args[0] if form == "parallel" else output).movedim(1, -1)
            return output + delta(x, self.strengths[site]).movedim(-1, 1)

        if isinstance(layer, nn.Conv2d):
            self.undo_by(layer.register_forward_hook(add_to_map))
            return
        self._columns[site] = columns_at(self.model, site)
        if undo := make_called(self.model, site):
            self.undo_with(undo)
        if layer not in self._joins:
            self._joins[layer] = functools.partial(self._add, [])
            self.undo_by(layer.register_forward_hook(self._joins[layer]))
        self._joins[layer].args[0].append(site)

    def _add(
        self, sites: list[Site], layer: nn.Linear, args: tuple[Tensor], output: Tensor
    ) -> Tensor:
        """The output with the Δ of these sites, in the layer's own memory if nobody has read it."""
        # A linear map does not keep its output for its own gradient; what an earlier hook, or a
        # layer of another kind, has kept is not known.
        is_first = next(iter(layer._forward_hooks.values())) is self._joins.get(layer)
        is_free = is_first and type(layer) is nn.Linear and type(layer.weight) is nn.Parameter
        terms = []
        for site in sites:
            start, stop = self._columns[site]
            delta, strength = self.deltas[f"{site.block}:{site.position}"], self.strengths[site]
            assert isinstance(delta, Delta)
            x = args[0]
            if self._forms[site] == "sequential":
                x, is_free = output[..., start:stop], False
            value, up = (
                delta.halves(x, strength) if delta.has_halves else (delta(x, strength), None)
            )
            terms.append(Term(start, stop, value, up))
        return added(output, terms, is_free=is_free)

    def _hook_sub_block(self, site: Site, delta: Delta, form: Form) -> None:
        """Join a residual branch at its very end, after LayerScale, before the residual addition.

        The parallel form reads the residual stream that enters the branch's LayerNorm.
        """
        norm, last = branch_at(self.model, site)
        entering: list[Tensor] = []

        def remember(module: nn.Module, args: tuple[Tensor]) -> None:
            entering.append(args[0])

        def add(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            x = entering.pop() if form == "parallel" else output
            return output + delta(x, self.strengths[site])

        if form == "parallel":
            self.undo_by(norm.register_forward_pre_hook(remember))
        self.undo_by(last.register_forward_hook(add))

    def add_prompts(self, prompts: dict[int, Tensor]) -> None:
        """Append `[p, d]` prompts after the tokens that enter each block, replacing earlier ones.

        They flow on until the next adapted block or the end, where they are dropped. In a rotary
        model they stand before all tokens instead, where, as class and register tokens, they are
        not rotated.
        """
        first = min(prompts)
        count = len(prompts[first])
        rotary = rotary_parts(self.model, first)
        for part in rotary:
            self._undo.append(
                functools.partial(setattr, part, "num_prefix_tokens", part.num_prefix_tokens)
            )
            part.num_prefix_tokens += count
        own = slice(count, None) if rotary else slice(None, -count)
        for block, value in prompts.items():
            parameter = nn.Parameter(value.to(self._device))
            self.prompts[str(block)] = parameter

            def enter(
                module: nn.Module, args: tuple[Tensor], block: int = block, p: Tensor = parameter
            ) -> tuple[Tensor]:
                x = args[0] if block == first else args[0][:, own]
                joined = [x, p.expand(len(x), -1, -1)]
                return (torch.cat(joined[::-1] if rotary else joined, dim=1),)

            self.undo_by(self.model.blocks[block].register_forward_pre_hook(enter))
        self.undo_by(self.model.blocks[-1].register_forward_hook(lambda m, a, y: y[:, own]))

    def replace_parameters(self, names: Sequence[str]) -> None:
        """Put trainable copies in the places of frozen parameters until `detach`.

        Raises:
            UserError: one is stored in too few bits to be trained; nothing was changed.
        """
        found = {name: self.model.get_parameter(name) for name in names}
        for name, frozen in found.items():
            if not is_full(frozen):
                raise UserError(f"{name} is to be trained, so it needs backbone.frozen=fp32.")
        for name, frozen in found.items():
            path, _, leaf = name.rpartition(".")
            owner = self.model.get_submodule(path)
            copy = nn.Parameter(frozen.detach().clone())
            self.replaced[name.replace(".", "/")] = copy
            setattr(owner, leaf, copy)
            self._undo.append(functools.partial(setattr, owner, leaf, frozen))

    def set_strengths(self, strengths: Mapping[Site, Strength]) -> None:
        """Give sites another strength, from the next forward pass on."""
        self.strengths.update(strengths)

    def site_parameters(self) -> dict[Site, list[nn.Parameter]]:
        """The tensors of every site's own Δ."""
        return {
            Site.parse(key.replace(":", ".")): list(delta.parameters())
            for key, delta in self.deltas.items()
        }

    def rate_factors(self) -> dict[nn.Parameter, float]:
        """What the recipe's learning rate is multiplied by, of tensors where it is not 1."""
        deltas = [part for part in self.modules() if isinstance(part, Delta)]
        return {p: f for delta in deltas for p, f in delta.rate_factors().items() if f != 1}

    def places(self) -> dict[nn.Parameter, str]:
        """Where in the model each tensor stands: the name of its block, or of what it replaces.

        Tensors that several blocks share, and strengths that are learned, stand nowhere.
        """
        names = [name for name, _ in blocks_of(self.model)]
        found: dict[nn.Parameter, str] = {}
        for part in (each for each in self.modules() if isinstance(each, Attachment)):
            for site, tensors in part.site_parameters().items():
                found |= dict.fromkeys(tensors, names[site.block])
            found |= {prompt: names[int(key)] for key, prompt in part.prompts.items()}
            found |= {tensor: key.replace("/", ".") for key, tensor in part.replaced.items()}
        return found

    def training_hook(self) -> TrainingHook:
        """What this method does around the trainer's steps; by default nothing."""
        return TrainingHook()

    def learned(self) -> Placement | None:
        """The strength that training found for each site; None where it was not learned."""
        return None

    def save_pretrained(self, folder: Path) -> list[Path] | None:
        """Write the adapter as Hugging Face peft does itself; None where it is not one of peft's.

        Raises:
            UserError: peft cannot express the strengths.
        """
        return None

    def detach(self) -> None:
        """Take everything out: the model computes again exactly what it did before."""
        while self._undo:
            self._undo.pop()()
        self._joins.clear()

    @torch.no_grad()
    def merge(self) -> Backbone:
        """Fold every Δ into the model's weights, detach, and return the model.

        Raises:
            UserError: a Δ is not linear, or is not at a linear position, or the frozen weights are
                stored in fewer bits; nothing was changed.
        """
        found = self.low_ranks()
        if not all(is_full(layer_at(self.model, site).weight) for site in found):
            raise UserError("To merge, load the backbone with frozen=fp32: updates would be lost.")
        if any(site.position == "dw" for site in found):
            raise UserError(
                "A Δ at dw mixes channels, which a depthwise convolution keeps apart: no merge."
            )
        for site, factors in found.items():
            layer = layer_at(self.model, site)
            weight = layer.weight.flatten(1)  # a 1 x 1 convolution is a matrix too
            rows = slice(*columns_at(self.model, site))
            update = factors.scale * factors.up @ factors.down
            if factors.form == "parallel":
                weight[rows] += update
            else:
                weight[rows] += update @ weight[rows]
                if layer.bias is not None:
                    layer.bias[rows] += update @ layer.bias[rows]
        self.detach()
        return self.model

    def low_ranks(self) -> dict[Site, LowRank]:
        """Every site's Δ with its strength as factors of a matrix.

        Raises:
            UserError: a Δ is not a low-rank matrix, or there is none.
        """
        result = {}
        for site, strength in self.strengths.items():
            delta = self.deltas[f"{site.block}:{site.position}"]
            assert isinstance(delta, Delta)
            factors = delta.low_rank()
            if factors is not None:
                down, up, scale = factors
                result[site] = LowRank(down, up, float(strength) * scale, self._forms[site])
        if not result or len(result) < len(self.strengths):
            raise UserError("Only low-rank matrices can be merged or exported; these are not.")
        return result


class Union(Attachment):
    """Attachments of several methods on one model, as one."""

    def __init__(self, model: Backbone, parts: dict[str, Attachment]) -> None:
        super().__init__(model)
        self.parts = nn.ModuleDict(parts)

    def set_strengths(self, strengths: Mapping[Site, Strength]) -> None:
        for part in self.parts.values():
            assert isinstance(part, Attachment)
            part.set_strengths({s: a for s, a in strengths.items() if s in part.strengths})

    def site_parameters(self) -> dict[Site, list[nn.Parameter]]:
        found: dict[Site, list[nn.Parameter]] = {}
        for part in self.parts.values():
            assert isinstance(part, Attachment)
            for site, tensors in part.site_parameters().items():
                found.setdefault(site, []).extend(tensors)
        return found

    def training_hook(self) -> TrainingHook:
        hooks = []
        for part in self.parts.values():
            assert isinstance(part, Attachment)
            hooks.append(part.training_hook())
        return joined(hooks)

    def detach(self) -> None:
        for part in self.parts.values():
            assert isinstance(part, Attachment)
            part.detach()

    def low_ranks(self) -> dict[Site, LowRank]:
        raise UserError("A combination can be neither merged nor exported; LoRA on its own can.")
