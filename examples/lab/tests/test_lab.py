"""The laboratory's dataset, backbone and search keep their contracts."""

import pytest

from harness.spec import BackboneSpec
from harness.testing import BackboneContract, DatasetContract, MethodContract, SearchContract

LAB_VIT = BackboneSpec(name="lab_vit", weights="random")


class TestGratings(DatasetContract):
    dataset = "gratings"


class TestLabViT(BackboneContract):
    backbone = LAB_VIT


class TestLabViTForFourBands(BackboneContract):
    backbone = LAB_VIT.model_copy(update={"in_chans": 4, "img_size": 48})


@pytest.mark.parametrize("method", ["lora", "lotr", "adapter", "bitfit", "full", "metapeft"])
class TestMethodsOnLabViT(MethodContract):
    """Every method can be trained on it."""

    backbone = LAB_VIT

    @pytest.fixture
    def case(self, method):
        from harness.testing import MethodCase

        return MethodCase(method=method, backbone=LAB_VIT)


class TestCoordinateSearch(SearchContract):
    search = "coordinate"
    budget = "9"


class TestCoordinateSearchOnAPlane(SearchContract):
    search = "coordinate"
    is_continuous = True
