"""Values that nobody means: huge, deep, or no text. Each is one short sentence, exit code 2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.cli import harness

import harness as harness_
from harness.catalogue.studies import load_study
from harness.errors import UserError
from harness.spec import Placement, TrialRequest, explain, parse_depth
from harness.spec.arguments import with_plain_arguments
from harness.store.run_folder import LONGEST_VARIANT, variant

DIGITS = "9" * 5000
COMMAND = ["sweep", "--study", "depth_vs_position", "--smoke", "--dry-run"]
ODD = {
    "5,000 digits": (["--set", f"recipe.epochs={DIGITS}"], "'recipe.epochs' was given"),
    "200,000 brackets": (["--set", "options.x=" + "[" * 200_000], "Unknown field 'x'"),
    "a null character": (["--set", 'data.name="\\u0000"'], "Unknown dataset"),
    "half a character": (["--set", 'backbone="\\ud800"'], "characters that are no text"),
    "a byte that is no text": (["--set", "method=\ud800"], "characters that are no text"),
    "a site with a zero": (["--set", 'placement={"00.q":1}'], "Bad site '00.q': write '0.q'"),
    "a site without a digit": (["--set", 'placement={"²².q":8}'], "Bad site '²².q': write <block>"),
    "a site of 5,000 digits": (["--set", f'placement={{"{DIGITS}.q":8}}'], "Bad site '999"),
    "seeds": (["--seeds", "2147483648"], "from 1 to 10000"),
    "a depth": (["--only", f"depth=last:{DIGITS}"], "Unknown value of depth: 'last:999"),
    "a budget": (["--search", "tpe", "--budget", "9" * 400], "Bad --budget '999"),
    "not a number": (["--set", "recipe.lr=NaN"], "finite number"),
    "images of a batch": (["--set", f"recipe.batch_size={'9' * 30}"], "less than or equal to"),
    "ranks": (["--set", f"options.rank={'9' * 30}"], "field 'rank' was given 999"),
    "drawn images": (["--set", f"data.options.test_per_class={'9' * 30}"], "'test_per_class' was"),
    "a size": (["--set", f"backbone.img_size={'9' * 30}"], "'backbone.img_size' was given 999"),
    "an empty name": (["--set", "recipe..lr=1"], "'recipe..lr'. Did you mean 'recipe.lr'?"),
    "a folder": (["--study", "."], "Study '.' is a folder: name a file in it"),
    "a whole object": (["--set", "recipe=" + '{"a":1}'], "Unknown field 'recipe.a'"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_values_are_refused_in_one_short_sentence(tmp_path, case):
    words, said = ODD[case]
    result = harness(*COMMAND, *words, "--out", tmp_path / "runs")
    assert result.exit_code == 2 and said in result.stderr, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and len(result.stderr) < 700
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [("status", "mine"), ("export", "0123", "--weights", "x")])
def test_a_store_that_is_not_there_is_named(tmp_path, words):
    place = tmp_path / "none"
    result = harness(*words, "--out", place)
    assert result.exit_code == 2 and f"There is no store {place}" in result.stderr


def test_a_part_of_a_study_that_is_none_is_named_without_validators():
    with pytest.raises(ValidationError) as error:
        load_study("depth_vs_position").derive(space=({"field": "alpha"},))
    assert explain(error.value) == "field 'space.values' is required."


def test_a_seed_is_what_random_numbers_can_be_drawn_from(tmp_path):
    words = ["train", "--method", "linear_probe", "--seed", "9" * 30, "--out", tmp_path / "runs"]
    result = harness(*words)
    assert result.exit_code == 2 and "seed" in result.stderr, result.output
    assert TrialRequest(seed=2**63 - 1).seed == 2**63 - 1
    assert not (tmp_path / "runs").exists()


def test_a_hash_that_is_null_is_none(tmp_path):
    assert variant({"backbone.sha256": None}) == "+backbone.sha256=None"


def test_names_of_runs_fit_into_a_file_system(tmp_path):
    sites = [{f"{block}.{p}": 1.0 for block in range(12) for p in "qkv"} for _ in range(2)]
    one, other = sites[0], {**sites[1], "11.v": 2.0}
    names = [variant({"placement": each}) for each in (one, other)]
    assert names[0] != names[1] and names[0] == variant({"placement": dict(one)})
    assert all(len(name.encode()) <= LONGEST_VARIANT for name in names)
    (tmp_path / f"depth_vs_position{names[0]}+smoke").mkdir()
    assert variant({"alpha": 2.0, "data": "a b/c"}) == "+alpha=2.0+data=ab_c"  # as it always was


@pytest.mark.parametrize("text", [f"last:{DIGITS}", f"block:{DIGITS}", f"blocks:0-{DIGITS}"])
def test_a_depth_beyond_all_blocks_is_refused_short(text):
    with pytest.raises(UserError) as refused:
        parse_depth(text, 12)
    assert len(str(refused.value)) < 200


def test_a_site_has_one_name():
    with pytest.raises(ValueError, match=r"Bad site '01\.q': write '1\.q'"):
        Placement({"01.q": 1.0})


def test_scalars_and_arrays_from_python_are_those_of_python():
    alpha, names = np.float32(2), np.array(["q", "v"])
    assert given(alpha, settings={"alpha": alpha, "options": {"a": torch.tensor(3)}}) == (
        2.0,
        {"alpha": 2.0, "options": {"a": 3}},
    )
    assert given(1, settings={"positions": names, "file": Path("x")}) == (
        1,
        {"positions": ["q", "v"], "file": "x"},
    )


@with_plain_arguments()
def given(alpha: float = 1.0, *, settings: Mapping[str, Any] | None = None):
    return alpha, settings


@pytest.mark.parametrize(
    "words, call",
    [
        ("alpha='3': it takes float.", lambda: given("3")),
        ("settings=[1]: it takes Mapping[str, Any] | None.", lambda: given(settings=[1])),
        ("seeds=[0, 1]: it takes int | None.", lambda: harness_.sweep("x", seeds=[0, 1])),
        ("study=None: it takes str | Path | Study.", lambda: harness_.sweep(None)),
        ("so no field can have it.", lambda: given(settings={"a": {1, 2}})),
    ],
)
def test_a_value_of_another_type_from_python_is_one_sentence(words, call):
    with pytest.raises(UserError) as error:
        call()
    assert str(error.value).endswith(words)
