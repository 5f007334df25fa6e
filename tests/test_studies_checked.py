"""A study is checked whole when it is loaded: what it accepts can be run and drawn."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from pydantic import ValidationError

from harness.catalogue.studies import load_study
from harness.errors import UserError
from harness.spec import explain
from harness.study import Axis, Points, Range, Study, Switches, View

DEPTH = Axis(field="depth", values=("last:1", "last:2"), label="d")
ALPHA = Axis(field="alpha", values=(1.0, 2.0), label="a")
MAP = View(kind="heatmap", rows="depth", columns="alpha", title="t")


def study(**changes):
    base = load_study("depth_vs_position")
    fields = {"name": "s", "axes": (DEPTH, ALPHA), "views": (MAP,), "smoke": {}, "reference": None}
    return base.derive(**{**fields, **changes})


@contextmanager
def refused(match):
    """What pydantic wraps, as `load_study` says it."""
    with pytest.raises(UserError, match=match) as told:
        try:
            yield told
        except ValidationError as error:
            raise UserError(explain(error)) from error


def written(tmp_path, text):
    path = tmp_path / "s.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("values", [("last:1", "last:1"), ("all", "last:2", "all")])
def test_a_value_that_stands_twice_is_refused(values):
    with refused(f"'depth' has the value {values[0]} twice"):
        Axis(field="depth", values=values, label="d")


def test_one_and_one_point_nought_are_one_value_and_true_is_none():
    with refused("'alpha' has the value 1 twice"):
        Axis(field="alpha", values=(1, 1.0), label="a")
    assert Axis(field="options.bias", values=(1, True), label="b").values == (1, True)


@pytest.mark.parametrize(
    "axis",
    [
        dict(field="seed", values=(0, 1)),
        dict(field="variant", values=("a",), settings={"a": {"seed": 3}}),
    ],
)
def test_an_axis_may_not_set_the_seed(axis):
    with refused("its `seeds` instead"):
        Axis(label="s", **axis)


@pytest.mark.parametrize(
    "field,low,high,word",
    [
        ("alpha", -1.0, 3.0, "alpha"),
        ("recipe.epochs", 1.0, 9.0, "recipe.epochs"),
        ("recipe.lrr", 0.1, 0.2, "recipe.lr"),
        ("method", 0.1, 0.2, "method"),
    ],
)
def test_a_range_outside_its_fields_domain_is_refused(field, low, high, word):
    part = Range(field=field, low=low, high=high, label="r")
    with refused(f"range of {field}") as error:
        study(space=(part,))
    assert word in str(error.value)


def test_a_range_has_no_seeds():
    with refused("Range of seed: a study has its seeds in `seeds`"):
        Range(field="seed", low=0, high=50, whole=True, label="s")


def test_positions_may_be_tuples():
    axis = Axis(field="positions", values=(("q", "v"), ("mlp1",)), label="p")
    made = study(axes=(axis, ALPHA), views=())
    assert [r.positions for _, r in made.cell_requests()][::2] == [("q", "v"), ("mlp1",)]


def test_a_figure_of_one_axis_needs_a_study_that_asks_about_one():
    points = Points(rows="alpha", title="t")
    with refused("shows one axis, alpha, and the study asks about depth"):
        study(views=(points,))
    nuisance = DEPTH.model_copy(update={"role": "nuisance"})
    assert study(axes=(nuisance, ALPHA), views=(points,)).views == (points,)


def test_a_map_has_two_axes():
    with refused("as its rows and its columns"):
        study(views=(MAP.model_copy(update={"columns": "depth"}),))


RATE = Range(field="recipe.lr", low=0.1, high=0.2, label="r")


@pytest.mark.parametrize(
    "space, said",
    [
        ((ALPHA, Range(field="alpha", low=1, high=2, label="a")), "alpha sets alpha and alpha"),
        ((RATE, RATE), "recipe.lr sets recipe.lr and recipe.lr"),
        ((ALPHA, Switches(positions=("q",))), "alpha sets alpha and switches sets alpha"),
        ((Switches(positions=("q",)), Switches(positions=("v",))), "switches sets alpha and"),
    ],
)
def test_a_space_sets_no_field_twice(space, said):
    with refused(said):
        study(space=space)


def test_the_strengths_of_switches_are_a_range():
    with refused("alpha_low=4 must be below alpha_high=1"):
        Switches(positions=("q",), alpha_low=4, alpha_high=1)


def test_a_seed_that_stands_twice_is_refused():
    with refused("seeds: one appears twice"):
        study(seeds=(0, 1, 0))


def test_a_study_needs_no_paper():
    fields = {name: value for name, value in dict(study()).items() if name != "paper"}
    assert Study(**fields).paper == "none"


@pytest.mark.parametrize("missing", ["question", "fixed"])
def test_a_field_that_is_missing_is_named_alone(tmp_path, missing):
    text = (
        "from harness.studies.depth_vs_position import study as base\n"
        "from harness.study import Study\n\n\ndef study():\n"
        f"    fields = dict(base())\n    del fields[{missing!r}]\n    return Study(**fields)\n"
    )
    with pytest.raises(UserError) as error:
        load_study(written(tmp_path, text))
    assert str(error.value) == f"s.py: field '{missing}' is required."


DERIVED = (
    "from harness.studies.depth_vs_position import study as base\n\n\n"
    "def study():\n    return base().derive({})\n"
)


@pytest.mark.parametrize(
    "text,said",
    [
        (DERIVED.format("name='a/b'"), "name 'a/b': write small letters from a to z"),
        (DERIVED.format("name=''"), "name '': write small letters from a to z"),
        (DERIVED.format("reference='fig1z'"), "Unknown reference 'fig1z'. Did you mean 'fig1"),
        ("def study():\n    raise KeyError('x')\n", "study() raised KeyError('x') in line 2."),
        ("\n1 / 0\n", "as Python: ZeroDivisionError('division by zero') in line 2."),
        ("\ndef study(:\n", "SyntaxError('invalid syntax') in line 2."),
    ],
)
def test_what_is_wrong_with_a_study_file_is_said_with_its_place(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        load_study(written(tmp_path, text))
    assert str(error.value).startswith("s.py") and said in str(error.value)


@pytest.mark.parametrize(
    "smoke,said",
    [
        ({"depth": ("last:3",)}, "value of depth in the smoke of study s: 'last:3'"),
        ({"recipe.epohcs": (1,)}, "Did you mean 'recipe.epochs'"),
        ({"recipe.epochs": (1, 2)}, "recipe.epochs has 2 values, and no axis varies it"),
    ],
)
def test_a_small_version_is_a_part_of_its_study(smoke, said):
    """Looked at when it is asked for: a study made from another may have kept that one's."""
    with pytest.raises(UserError, match=said):
        study(smoke=smoke).at_smoke_scale()


def test_a_small_version_has_a_part_of_the_space_too():
    rate = Range(field="recipe.lr", low=0.1, high=0.2, label="r")
    small = study(space=(ALPHA, rate), smoke={"alpha": (2.0,)}).at_smoke_scale()
    assert small.axes[1].values == (2.0,) == small.space[0].values and small.space[1] == rate


def test_a_study_file_of_another_ending_is_none(tmp_path):
    (tmp_path / "s.txt").write_text(DERIVED.format(""))
    with pytest.raises(UserError, match=r"s\.txt: the name of one ends in \.py"):
        load_study(str(tmp_path / "s.txt"))


@pytest.mark.parametrize(
    "ending", ["raise SystemExit(3)", "raise GeneratorExit", "1 / 0", "exit()"]
)
def test_whatever_a_study_file_raises_is_one_sentence(tmp_path, ending):
    with pytest.raises(UserError, match=r"s\.py cannot be read as Python") as error:
        load_study(written(tmp_path, f"{ending}\n"))
    assert "\n" not in str(error.value)


def test_a_message_shows_the_beginning_of_what_was_given():
    base = load_study("depth_vs_position").base
    with pytest.raises(UserError) as error:
        base.with_values({"alpha": ["x" * 5000]}, source="--set")
    assert len(str(error.value)) < 300 and "xxx" in str(error.value)
