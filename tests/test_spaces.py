"""What searches range over: spaces, their points and their variables."""

from __future__ import annotations

import pytest
from support.searches import PLANE, outcome, search, study

from harness.errors import UserError
from harness.study.axes import Axis, Range, Switches, in_words
from harness.study.space import SearchSpace


def test_a_space_knows_its_size_default_and_points():
    space = SearchSpace(study(), 12)
    assert space.size == 12
    assert space.default() == {"positions": 0, "alpha": 2}
    points = list(space.enumerate())
    assert len(points) == 12 and points[1] == {"positions": 0, "alpha": 1}
    values = space.at(points[7])
    assert values == {"positions": "q", "alpha": 4.0}
    request = space.request(values, seed=3)
    assert (request.positions, request.alpha, request.seed) == (("q",), 4.0, 3)


def test_all_blocks_are_the_deepest_of_a_depth_axis():
    depths = Axis(field="depth", values=("last:1", "last:12", "last:6"), label="depth")
    groups = Axis(field="depth", values=("blocks:0-2", "blocks:3-5"), label="depth")
    assert SearchSpace(study(axes=(depths,)), 12).default() == {"depth": 1}  # the base has "all"
    assert SearchSpace(study(axes=(groups,)), 12).default() == {"depth": 0}


def test_epochs_of_whole_trials_are_known_however_a_recipe_is_given():
    recipes = ("deit", {"epochs": 4, "warmup_epochs": 0})
    base = study().base.with_values({"recipe.epochs": 7}, source="test")
    named = Axis(field="recipe", values=recipes, label="recipe")
    deit = base.with_values({"recipe": "deit"}, source="test").recipe.epochs
    assert SearchSpace(study(axes=(named,), base=base), 12).lengths == {deit, 4}
    plain = Axis(field="recipe.epochs", values=(3, 9), label="epochs")
    assert SearchSpace(study(axes=(plain,), base=base), 12).lengths == {3, 9}
    assert SearchSpace(study(base=base), 12).lengths == {7}
    numbers = Range(field="recipe.epochs", low=1, high=4, whole=True, label="epochs")
    assert SearchSpace(study((numbers,), base=base), 12).lengths == {1, 2, 3, 4}


def test_a_continuous_space_is_infinite_and_starts_at_the_base():
    space = SearchSpace(study(PLANE), 12)
    assert space.size == float("inf")
    assert space.default() == {"alpha": 2.0, "recipe.lr": 0.1}
    with pytest.raises(UserError, match="no list"):
        list(space.enumerate())


@pytest.mark.parametrize("by,count", [("site", 72), ("position", 6), ("blocks", 4)])
def test_no_alpha_for_what_is_off(by, count):
    part = Switches(positions=("q", "k", "v", "out", "mlp1", "mlp2"), by=by)
    space = SearchSpace(study((part,)), 12)
    names = []

    def suggest(name, domain):
        names.append(name)
        if name.endswith(" on"):
            return sum(seen.endswith(" on") for seen in names) % 2
        return 3.0

    values = space.values(suggest)
    groups = [name for name in names if name.endswith(" on")]
    alphas = [name for name in names if name.endswith(" alpha")]
    assert len(groups) == count and 0 < len(alphas) < count
    request = space.request(values, seed=0)
    assert set(request.placement.root.values()) == {3.0}
    assert len(request.placement) == len(alphas) * 72 / count
    assert len(space.default()) == 2 * count


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_per_site_spaces_can_be_searched(tmp_path, sampler):
    part = Switches(positions=("q", "mlp1"), by="position")
    space = SearchSpace(study((part,)), 12)
    made = search(sampler, tmp_path / "log", "14", space=space)
    sizes = set()
    while asked := made.ask(1):
        placement = asked[0].options["values"]["placement"]
        sizes.add(len(placement))
        made.tell(outcome(asked[0], objective=len(placement) / 24))
    assert sizes == {0, 12, 24} or sizes == {12, 24}


def test_groups_that_are_on_have_a_rank():
    part = Switches(positions=("q", "mlp1"), by="position", ranks=(2, 8))
    space = SearchSpace(study((part,)), 2)
    wanted = {"q on": 0, "mlp1 on": 1, "mlp1 alpha": 3.0, "mlp1 rank": 1}
    values = space.at(wanted)
    assert values["options.rank_at"] == {"0.mlp1": 8, "1.mlp1": 8}
    assert space.request(values, seed=0).options["rank_at"] == values["options.rank_at"]
    assert space.params(values) == wanted
    assert space.params({**values, "options.rank_at": {"0.mlp1": 8, "1.mlp1": 2}}) is None
    assert space.params({**values, "options.rank_at": {"0.mlp1": 4, "1.mlp1": 4}}) is None
    assert in_words(values["options.rank_at"]) == "8 at sites"


def test_a_whole_range_is_of_whole_numbers():
    part = Range(field="options.rank", low=1, high=64, log=True, label="rank", whole=True)
    space = SearchSpace(study((part,)), 12)
    values = space.values(lambda name, domain: 7.6)
    assert values == {"options.rank": 8} and isinstance(values["options.rank"], int)
    assert space.params(values) == {"options.rank": 8}
    assert space.default() == {"options.rank": 1.0}
    with pytest.raises(ValueError, match="it is whole"):
        Range(field="options.rank", low=1.5, high=64, label="rank", whole=True)


SWITCHED = Switches(positions=("q", "mlp1"), by="position")
RANKED = Switches(positions=("q", "mlp1"), by="position", ranks=(2, 8))


@pytest.mark.parametrize("space", [(), PLANE, (SWITCHED,), (RANKED,)])
def test_a_space_finds_the_variables_of_its_own_configurations(space):
    made = SearchSpace(study(space), 12)
    params = made.default()
    values = made.at(params)
    assert made.params(values) == params
    assert made.params({"positions": "k"}) is None


def test_a_placement_that_groups_cannot_make_has_no_variables():
    space = SearchSpace(study((Switches(positions=("q", "mlp1"), by="position"),)), 2)
    even = {"0.q": 2.0, "1.q": 2.0}
    assert space.params({"placement": even}) == {"q on": 1, "q alpha": 2.0, "mlp1 on": 0}
    for wrong in ({"0.q": 2.0}, {**even, "1.q": 3.0}, {**even, "0.k": 1.0}):
        assert space.params({"placement": wrong}) is None
