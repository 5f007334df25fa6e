"""The contracts of what can be added, as classes of tests for pytest.

A user's own test file needs one line for each thing that it adds:

    from harness.testing import MethodContract

    class TestMine(MethodContract):
        method = "mine"

Attributes say what is tested; a fixture of the same purpose can be overridden where a name is not
enough. What each contract asks for in words: `docs/extending.md`. pytest is needed only by those
who import this package; nothing else of the harness does.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("backbones", "datasets", "engines", "methods")),
    *(f"{__name__}.{part}" for part in ("searches", "stores")),
)

from harness.testing.backbones import BackboneContract as BackboneContract
from harness.testing.datasets import DatasetContract as DatasetContract
from harness.testing.datasets import DatasetDeclaration as DatasetDeclaration
from harness.testing.engines import EngineContract as EngineContract
from harness.testing.methods import MethodCase as MethodCase
from harness.testing.methods import MethodContract as MethodContract
from harness.testing.searches import SearchContract as SearchContract
from harness.testing.stores import StoreContract as StoreContract
