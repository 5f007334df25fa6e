"""What is registered keeps its contract; a backbone is looked up once for a whole request."""

from __future__ import annotations

import pytest
import timm

from harness.insertion.method import METHODS, PeftMethod
from harness.model.backbones import backbone_info
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import BackboneSpec, Frozen, TrialRequest


@pytest.mark.parametrize("name", METHODS.names())
def test_a_method_keeps_the_contract(name):
    method = METHODS.get(name)()
    assert isinstance(method, PeftMethod) and issubclass(method.Options, Frozen)
    assert type(method.parse_options({})) is method.Options
    assert set(method.default_positions) <= set(method.positions)


def test_a_request_builds_its_backbone_once(monkeypatch):
    """Without weights, so the name, the sizes and the input size come from one model."""
    built = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: built.append(a) or create(*a, **k))
    spec = BackboneSpec(name="vit_tiny_patch16_224", weights="random", img_size=48)
    changes = ({"after": 1, "values": {"alpha": 2.0}}, {"after": 2, "values": {"alpha": 1.0}})
    resolve(TrialRequest(backbone=spec, changes=changes), Runtime())
    info = backbone_info(spec, None)
    assert len(built) == 1
    assert (info.name, info.sha256, info.input_size) == (spec.name, None, 48)
    assert info.dims.num_blocks == 12 and info.dims.width == 192
