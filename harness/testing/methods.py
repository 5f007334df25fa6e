"""What every PEFT method must keep.

Owns: these tests. Must not know: any method's name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import JsonValue

from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.method import PeftMethod, get_method
from harness.model.backbones import dims, features
from harness.model.blocks import Backbone
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import BackboneSpec, Frozen, Placement, Position, identity
from harness.store.store import Store
from harness.testing.made import SMALL, TINY, fill, frozen_backbone, made_images, wake

MOST_FILLS = 5
"""Random values tried until every tensor has had a gradient: a unit may be off for all tokens."""


@dataclass(frozen=True, kw_only=True)
class MethodCase:
    """A method with its options, at some positions in all blocks of a backbone."""

    method: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    backbone: BackboneSpec = SMALL
    positions: Sequence[Position] | None = None
    """None: all that the method has on the backbone."""
    alpha: float = 2.0
    starts_at_zero: bool | Literal["nearly"] = True
    device: str = "cpu"
    precision: str = "fp32"

    def __str__(self) -> str:
        return self.method

    @property
    def implementation(self) -> PeftMethod[Any]:
        return get_method(self.method)

    @property
    def parsed(self) -> Any:
        """The options, complete."""
        return self.implementation.parse_options(dict(self.options))

    def placement(
        self, blocks: Sequence[int] | None = None, alpha: float | None = None
    ) -> Placement:
        """The sites, in all blocks unless some are named."""
        sizes = dims(self.backbone)
        positions = self.positions or self.implementation.positions_on(sizes, self.parsed)
        where = range(sizes.num_blocks) if blocks is None else blocks
        return Placement.of(positions, where, self.alpha if alpha is None else alpha)

    def model(self) -> Backbone:
        """The frozen backbone, which nobody else uses."""
        return copy.deepcopy(frozen_backbone(self.backbone)).to(self.device)

    def attach(
        self, model: Backbone, placement: Placement | None = None, seed: int = 0
    ) -> Attachment:
        where = self.placement() if placement is None else placement
        return self.implementation.attach(model, where, self.parsed, seed=seed)

    def images(self) -> torch.Tensor:
        return made_images(self.backbone).to(self.device)


class MethodContract:
    """Set `method`; or override the fixture `case`, for several cases at once."""

    method: str
    """Its name, or `a+b`."""
    options: ClassVar[Mapping[str, JsonValue]] = {}
    backbone: BackboneSpec = SMALL
    positions: Sequence[Position] | None = None
    """Where it is put, in all blocks; None: everywhere it can be."""
    starts_at_zero: bool | Literal["nearly"] = True
    """Attached and not yet trained, it changes nothing; `nearly`: but for rounding."""

    @pytest.fixture
    def case(self) -> MethodCase:
        return MethodCase(
            method=self.method,
            options=self.options,
            backbone=self.backbone,
            positions=self.positions,
            starts_at_zero=self.starts_at_zero,
        )

    def test_it_says_what_it_is(self, case: MethodCase) -> None:
        method = case.implementation
        assert isinstance(method, PeftMethod) and issubclass(method.Options, Frozen)
        assert type(method.parse_options({})) is method.Options
        assert set(method.default_positions) <= set(method.positions)
        assert isinstance(method.additive, bool)
        if "+" not in case.method:
            assert method.summary and "\n" not in method.summary
        parsed = method.parse_options(dict(case.options))
        assert method.parse_options(identity(parsed)) == parsed  # as a trial's spec has them
        with pytest.raises(UserError, match="no_such_option"):
            method.parse_options({"no_such_option": 1})

    def test_it_adds_what_its_formula_says(self, case: MethodCase) -> None:
        model = case.model()
        attachment = case.attach(model)
        own = dict(attachment.named_parameters())
        expected = case.implementation.expected_params(
            dims(case.backbone), case.placement(), case.parsed
        )
        assert sum(parameter.numel() for parameter in own.values()) == expected
        assert set(attachment.state_dict()) == set(own), "a frozen tensor or a buffer is kept"
        assert all(parameter.requires_grad for parameter in own.values())
        assert all(parameter.device.type == case.device for parameter in own.values())

    def test_it_starts_at_the_frozen_backbone(self, case: MethodCase) -> None:
        model, x = case.model(), case.images()
        frozen = features(model, x)
        case.attach(model)
        now = features(model, x)
        # Not to the bit: attention takes another kernel where its bias is trained.
        within = 1e-4 if case.starts_at_zero == "nearly" else 1e-6
        assert torch.allclose(now, frozen, rtol=within, atol=within) == bool(case.starts_at_zero)

    def test_it_trains_and_leaves_the_backbone_as_it_was(self, case: MethodCase) -> None:
        model, x = case.model(), case.images()
        labels = torch.tensor([0, 1, 2], device=case.device)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        frozen = features(model, x)
        attachment = case.attach(model)
        own = dict(attachment.named_parameters())

        head = torch.nn.Linear(frozen.shape[1], 3, device=case.device)
        optimiser = torch.optim.SGD([*own.values(), *head.parameters()], lr=0.05, momentum=0.9)
        loss = torch.zeros(())
        for _ in range(3):
            is_half = case.precision == "bf16"
            with torch.autocast(case.device, dtype=torch.bfloat16, enabled=is_half):
                loss = torch.nn.functional.cross_entropy(head(features(model, x)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert math.isfinite(loss.item())

        left = set(own)  # away from the start, where half of a module may have no gradient yet
        for seed in range(MOST_FILLS):
            fill(attachment, seed)
            optimiser.zero_grad()
            head(features(model, x)).square().sum().backward()
            left -= {name for name in left if _has_gradient(own[name])}
        assert not left, "these tensors are never trained"

        attachment.detach()
        after = model.state_dict()
        assert set(after) == set(before)
        for name, value in before.items():
            assert torch.equal(after[name], value), name
        assert torch.equal(features(model, x), frozen)

    def test_initial_values_depend_on_seed_and_site_alone(self, case: MethodCase) -> None:
        torch.manual_seed(1)
        first = _values(case)
        torch.manual_seed(2)
        again = _values(case)
        other_seed = _values(case, seed=1)
        last = _values(case, placement=case.placement([dims(case.backbone).num_blocks - 1]))
        assert all(torch.equal(again[name], value) for name, value in first.items()), (
            "draw from harness.rng.generator(seed, 'init', name, site), never from torch's own"
        )
        assert set(other_seed) == set(first)
        assert set(last) <= set(first), "a tensor has another name where there are fewer sites"
        for name, value in last.items():  # one tensor for all sites is smaller for fewer of them
            assert torch.equal(first[name], value) or first[name].shape != value.shape, name

    def test_strength_scales_what_it_adds(self, case: MethodCase) -> None:
        method = case.implementation
        if not method.additive or method.wraps:
            return  # it has no alpha, or learns it
        x, found = case.images(), {}
        for alpha in (0.0, 1.0, 2.0):
            model = case.model()
            wake(case.attach(model, case.placement(alpha=alpha)))
            found[alpha] = features(model, x)
        assert torch.allclose(found[0.0], features(case.model(), x), rtol=1e-4, atol=1e-5)
        assert not torch.equal(found[1.0], found[0.0])
        assert not torch.equal(found[1.0], found[2.0])

    def test_a_trial_is_complete_and_the_same_again(self, case: MethodCase, tmp_path: Path) -> None:
        """One epoch on the embedded benchmark, on the method's default sites."""
        request = TINY.model_copy(
            update={
                "method": case.method,
                "options": dict(case.options),
                "backbone": case.backbone,
                "positions": None,
                "depth": "all",
            }
        )
        spec = resolve(request, Runtime())
        one, two = (run_trial(spec, Runtime(), Store(tmp_path / name)) for name in "ab")
        assert one is not None and two is not None
        assert one.status == "COMPLETE", one.error
        assert one.trainable_params == one.expected_params
        assert (one.select, one.test) == (two.select, two.test)


def _has_gradient(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().max() > 0)


def _values(case: MethodCase, **where: Any) -> dict[str, torch.Tensor]:
    """The tensors that a method starts with."""
    attachment = case.attach(case.model(), **where)
    attachment.detach()
    return {name: value.clone() for name, value in attachment.state_dict().items()}
