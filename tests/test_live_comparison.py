"""A comparison of searches that trains, and the replay of what it trained."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from support.cli import harness
from support.few import VALUES

from harness.comparison.baseline import ALPHA, STANDING
from harness.reports.numbers.searches import load_searches
from harness.spec import LINEAR_POSITIONS, Placement
from harness.store.run_folder import RunFolder
from harness.store.search_log import asks, read_log
from harness.store.store import Store

pytestmark = pytest.mark.slow

EVERYWHERE = Placement.of(LINEAR_POSITIONS, range(12), ALPHA)
SEARCHES = "random,tpe+hyperband,pbt,metapeft"
TINY = f"""
FEW = {VALUES}
from harness.study import Axis
from harness.studies.joint_space import study as joint
def study():
    made = joint()
    values = {{"positions": ("mlp1", "q"), "depth": ("last:1",), "alpha": (1.0, 4.0)}}
    axes = [axis.model_copy(update={{"values": values[axis.field]}}) for axis in made.axes]
    base = made.base.with_values({{"recipe.epochs": 3, **FEW}}, source="tiny")
    return made.derive(name="tiny", axes=tuple(axes), base=base, views=(), smoke={{}})
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory, all_trained_here, few_images):
    """A live comparison in the store of a finished small sweep, and its result."""
    root = tmp_path_factory.mktemp("live")
    (root / "tiny.py").write_text(TINY)
    small = ["--study", root / "tiny.py", "--out", root, "--seeds", 2]
    args = ["--search", SEARCHES, "--budget", 2, "--repeats", 1, "--confirm", 1, "--workers", 1]
    assert harness("sweep", *small).exit_code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.comparison.live.CONFIRM_SEEDS", 1)  # five would train for long
        yield root, [*small, *args], harness("compare", *small, *args)


def test_a_live_comparison_trains_confirms_and_reports(live):
    root, args, result = live
    assert result.exit_code == 0, result.output
    assert "Confirmation on seeds 2 to 2." in result.output
    folder = RunFolder.of(Store(root), "tiny+searches")
    text = (folder.report / "report.md").read_text()
    assert "Live: 1 repeat over 1 training seed, " in text
    assert "| pbt " in text and "How far from the best" not in text
    found = load_searches(folder)
    assert found.landscape is None and found.parts[0].expected is None
    final = found.choices.final
    assert final["confirmed"].notna().all() and final["regret"].isna().all()
    assert found.recorded.comparison.confirm_seeds == (2,)
    # The baseline stands beside them; its rates are as many as the budget has room for.
    tried = {name: asks(read_log(folder.log(0, name))) for name in STANDING}
    assert [len(own) for own in tried.values()] == [1, 2]
    for ask in [*itertools.chain(*tried.values())]:
        assert Store(root).record(ask.trial_id).spec.placement == EVERYWHERE
    assert set(STANDING) <= set(final["search"])
    logs = {path.name: path.read_bytes() for path in folder.logs()}
    trials = {path.name: path.stat().st_mtime_ns for path in (root / "trials").iterdir()}
    again = harness("compare", *args)
    assert again.exit_code == 0, again.output
    assert {path.name: path.read_bytes() for path in folder.logs()} == logs
    assert {p.name: p.stat().st_mtime_ns for p in (root / "trials").iterdir()} == trials
    other = [*args[: args.index("--search")], "--search", "random", "--budget", 1, "--repeats", 1]
    assert harness("compare", *other, "--workers", 1).exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.logs()} == logs
    apart = RunFolder.of(Store(root), "tiny+searches+budget=1+search=random")
    assert len(asks(read_log(apart.log(0, "random")))) == 1


@pytest.mark.parametrize("other", [["--workers", 2], ["--seeds", 3]])
def test_another_comparison_is_refused_before_a_trial_of_it(live, other):
    root, args, _ = live
    field = other[0][2:]
    trials = {path.name for path in (root / "trials").iterdir()}
    result = harness("compare", *args, *other)  # of an option that is given twice the later counts
    assert result.exit_code == 2 and f"holds a comparison with other {field}" in result.stderr
    assert {path.name for path in (root / "trials").iterdir()} == trials


def test_a_replay_is_what_the_same_searches_did_live(live, tmp_path):
    root, *_ = live
    table = root / "t.parquet"
    assert harness("tabulate", "tiny", "--file", table, "--out", root).exit_code == 0
    result = harness(
        *("compare", "--study", root / "tiny.py", "--replay", table, "--out", tmp_path),
        *("--search", "random,tpe+hyperband", "--repeats", 1, "--seeds", 2, "--budget", 2),
    )
    assert result.exit_code == 0, result.output
    folders = [RunFolder.of(Store(out), "tiny+searches") for out in (root, tmp_path)]
    for name in ("random", "tpe+hyperband"):
        logs = [read_log(folder.log(0, name)) for folder in folders]
        assert logs[0] == logs[1] and len(logs[0]) > 3
    lived, replayed = (load_searches(folder).answers for folder in folders)
    same = ["search", "repeat", "trial_id", "select", "incumbent_test", "spent_device_s"]
    lived = lived[lived["search"].isin(["random", "tpe+hyperband"])]
    pd.testing.assert_frame_equal(
        lived[same].reset_index(drop=True), replayed[same].reset_index(drop=True)
    )
