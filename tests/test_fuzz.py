"""Generated inputs of every kind, a few dozens each; `make stress` gives thousands."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from support.fuzz import KINDS

INPUTS = {"settings": 60, "run_files": 60, "checkpoints": 25}
OF_OTHERS = 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_generated_inputs_end_in_success_or_in_one_sentence(kind):
    inputs, check, _ = KINDS[kind]
    settings(
        max_examples=INPUTS.get(kind, OF_OTHERS),
        deadline=None,
        derandomize=True,  # the same in every run
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(inputs)(check))()
