"""What is built in keeps the contracts that a user's tests hold theirs to (`harness.testing`)."""

from __future__ import annotations

from functools import partial

import pytest
import timm
from support.backbones import BACKBONES, SMALL_FAMILIES
from support.here import Here

from harness.engines.local import LocalEngine
from harness.model.backbones import backbone_info
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.base import GridSearch
from harness.search.catalogue import share_search
from harness.spec import BackboneSpec, TrialRequest
from harness.testing import BackboneContract, EngineContract, SearchContract, StoreContract

FAST = ["vit_pico", "ViT, bf16", "Swin", "ConvNeXt-A", *sorted(SMALL_FAMILIES)]


class TestBackbones(BackboneContract):
    @pytest.fixture(params=FAST)
    def spec(self, request):
        return BACKBONES[request.param]


class TestGrid(SearchContract):
    learns_from_its_log = False

    @pytest.fixture
    def maker(self):
        def start(task):
            cells = [
                task.space.values(lambda name, domain, params=params: params[name])
                for params in task.space.enumerate()
            ]
            return GridSearch([task.make(values, task.seed) for values in cells])

        return start


class TestRandom(SearchContract):
    search = "random"


class TestTPE(SearchContract):
    search = "tpe"


class TestCMAES(SearchContract):
    search = "cmaes"
    is_continuous = True


class TestTPEWithHyperband(SearchContract):
    search = "tpe+hyperband"


class TestTPEWithHyperbandOnShares(SearchContract):
    budget = "20"

    @pytest.fixture
    def maker(self):
        return share_search("tpe", "hyperband")


class TestRandomWithASHAOnShares(SearchContract):
    budget = "14"

    @pytest.fixture
    def maker(self):
        return share_search("random", "asha")


class TestNSGA2(SearchContract):
    search = "nsga2"
    budget = "12"
    further = ("micro",)


class TestTPEWithTwoObjectives(SearchContract):
    search = "tpe"
    budget = "12"
    further = ("micro",)


class TestPopulation(SearchContract):
    search = "pbt"
    budget = "4"


class TestStore(StoreContract):
    pass


@pytest.mark.slow
class TestLocalEngine(EngineContract):
    @pytest.fixture
    def start_engine(self):
        return LocalEngine


@pytest.mark.slow
class TestRayEngine(EngineContract):
    """On a cluster that is there already, since to start one takes longest."""

    @pytest.fixture
    def start_engine(self, cluster):
        from harness.engines.ray_tune import RayEngine

        return partial(RayEngine, address=cluster)


@pytest.mark.slow
class TestHere(EngineContract):
    """Tests trust it in the place of an engine with workers."""

    @pytest.fixture
    def start_engine(self):
        return Here

    test_a_worker_that_dies_is_said_and_the_engine_goes_on = None
    test_trials_that_report_wait_and_obey = None  # of two at a time


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
