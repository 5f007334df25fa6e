"""Tables of finished sweeps, and searches replayed from them."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cli import harness
from support.fake_trials import Fake
from support.records import publish as publish_record
from support.sweeps import made_metapeft, made_sweep, seconds
from support.tables import DEPTHS, compare, small_study

from harness.comparison.controls import Controls
from harness.errors import UserError
from harness.runner.runtime import Runtime
from harness.search.base import Decision, SearchTask
from harness.search.budget import Budget
from harness.search.catalogue import find_search
from harness.search.replay import Recording
from harness.spec import SEMANTICS
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, read_run, write_command, write_comparison
from harness.store.search_log import asks, read_log
from harness.store.store import Store
from harness.store.table import read_table, tabulate
from harness.study.axes import Axis, Range


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, its sweep and MetaPEFT's run, and their table."""
    root = tmp_path_factory.mktemp("made")
    folders = [made_sweep(root, small_study()), made_metapeft(root, small_study())]
    typed = "harness sweep --study joint_space --search metapeft --budget 2"
    write_command(folders[1], Command(typed, "2 restarts"))
    tabulate(folders, root / "t.parquet")
    return root, folders, root / "t.parquet"


def test_a_table_has_every_epoch_of_every_trial(made):
    root, folders, path = made
    table = read_table(path)
    assert table.info.study == small_study()
    assert (table.info.cells, table.info.num_classes) == (2 * 9 + 1, 15)
    assert table.info.groups == ("head", "medium", "tail")
    assert table.info.devices == {"made up": 2 * 19}
    store = Store(root)
    trials = {asked.trial_id: asked for folder in folders for asked in read_run(folder).asked}
    assert set(table.rows["trial_id"]) == set(trials) and len(trials) == 38
    for trial_id, own in table.rows.groupby("trial_id"):
        record, history = store.record(trial_id), store.history(trial_id)
        asked = trials[trial_id]
        assert json.loads(own["cell"].iloc[0]) == asked.cell
        assert set(own["seed"]) == {asked.seed} and set(own["status"]) == {record.status}
        assert list(own["epoch"]) == list(range(1, record.epochs_run + 1))
        for row, event in zip(own.to_dict("records"), history, strict=True):
            scores = event.get("select")
            for name in ("class_mean", "micro"):
                assert (
                    pd.isna(row[f"select_{name}"])
                    if not scores
                    else (row[f"select_{name}"] == scores[name])
                )
            assert not scores or row["select_tail"] == scores["groups"]["tail"]
            share = row["epoch"] / record.epochs_run
            assert row["device_s"] == pytest.approx(share * record.cost.device_s)
        last = own.iloc[-1]
        assert own["spec"].notna().sum() == own["spec"].tail(1).notna().sum() == 1
        if record.status == "COMPLETE":
            assert last["test_class_mean"] == record.test.class_mean
            assert last["final_class_mean"] == record.select.class_mean
            assert last["test_tail"] == record.test.groups["tail"]
            assert last["test_se_tail"] == record.test.groups_se["tail"]
            assert own["test_class_mean"].notna().sum() == 1
        else:
            assert pd.isna(last["test_class_mean"]) and pd.isna(last["final_class_mean"])
    assert (table.trials["status"] == "DIVERGED").sum() > 0


def test_a_table_says_where_it_comes_from(made):
    _, _, path = made
    info = read_table(path).info
    assert info.environment == {"semantics": str(SEMANTICS), "device": "made up"}
    assert info.commands[0] == "harness sweep --study joint_space"
    assert info.commands[1] == "harness sweep --study joint_space --search metapeft --budget 2"
    assert "tabulate joint_space joint_space+metapeft --file t.parquet" in info.commands[2]
    full = info.reference
    assert full.cell == {"positions": "mlp1", "depth": "last:12", "alpha": 4.0}
    assert full.device_s == pytest.approx(seconds(full.cell), rel=0.05)
    assert full.flops == 1e9 * seconds(full.cell)


def test_the_grids_columns_are_typed_and_readable_by_anyone(made):
    frame = pd.read_parquet(made[2])
    assert set(frame["alpha"].dropna()) == {1.0, 4.0, 128.0}
    assert set(frame["depth"].dropna()) == set(DEPTHS)
    assert frame[frame["method"] == "metapeft"]["options"].iloc[0].startswith("{")


@pytest.mark.parametrize("status", ["absent", "FAILED"])
def test_an_unfinished_sweep_is_refused_in_one_sentence(tmp_path, status):
    study = small_study()
    folder = made_sweep(tmp_path, study)
    asked = read_run(folder).asked[4]
    store = Store(tmp_path)
    spec = store.record(asked.trial_id).spec
    (store.trials / asked.trial_id).rename(tmp_path / "gone")
    if status == "FAILED":
        publish_record(store, spec, status="FAILED", error="boom")
    words = "1 are missing and 0 failed" if status == "absent" else "0 are missing and 1 failed"
    with pytest.raises(UserError, match=f"of 36 trials {words}, the first at positions") as error:
        tabulate([folder], tmp_path / "t.parquet")
    assert "\n" not in str(error.value) and "harness sweep --study joint_space" in str(error.value)
    assert not (tmp_path / "t.parquet").exists()


def test_what_cannot_be_one_table_is_refused(tmp_path, made):
    _, folders, _ = made
    other = made_sweep(tmp_path / "o", small_study(fixed="something else", seeds=(0,)))
    two = [folders[0], other]
    for runs, words in (([folders[1]], "no exhaustive"), (two, "not of the same study")):
        with pytest.raises(UserError, match=words):
            tabulate(runs, tmp_path / "t")
    wide = Range(field="alpha", low=0.1, high=1.0, label="alpha")
    apart = Axis(field="recipe.lr", values=(0.1, 0.2), label="rate")
    for part, words in ((wide, "without a list of values"), (apart, "the unit of cost: add")):
        swept = made_sweep(tmp_path / part.field, small_study(space=(part,), seeds=(0,)))
        with pytest.raises(UserError, match=words):
            tabulate([swept], tmp_path / "t")


def test_a_trial_without_its_curve_is_refused(tmp_path):
    folder = made_sweep(tmp_path, small_study(seeds=(0,)))
    trial = read_run(folder).asked[0].trial_id
    (tmp_path / "trials" / trial / "history.jsonl").unlink()
    with pytest.raises(UserError, match=f"{trial}/history.jsonl has 0 of the trial's 10 epochs"):
        tabulate([folder], tmp_path / "t.parquet")


# Column -> what a damaged or a foreign table has there.
OTHERWISE = {"seed": None, "cell": "{", "spec": "[]", "trial_id": 0, "epoch": 0.5, "device_s": "x"}


@pytest.mark.parametrize("case", ["absent", "text", "torn", "foreign", "version", *OTHERWISE])
def test_files_that_are_no_tables_are_refused(tmp_path, made, case):
    path = tmp_path / "t.parquet"
    whole, table = made[2].read_bytes(), pq.read_table(made[2])
    if case == "text":
        path.write_text("hello")
    elif case == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    elif case == "foreign":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    elif case == "version":
        meta = json.loads(table.schema.metadata[b"harness"]) | {"format": 99}
        pq.write_table(table.replace_schema_metadata({b"harness": json.dumps(meta).encode()}), path)
    elif case in OTHERWISE:
        rows = pa.Table.from_pandas(table.to_pandas().assign(**{case: OTHERWISE[case]}))
        pq.write_table(rows.replace_schema_metadata(table.schema.metadata), path)
    words = {"absent": "does not exist", "version": "another format"}.get(case, "is no table of")
    with pytest.raises(UserError, match=words) as error:
        read_table(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


# Replay.


class Listed:
    """A search that asks for given cells and keeps what it hears."""

    def __init__(self, make, cells, *, stop_at=None):
        self.needs_epoch_reports = stop_at is not None
        self._left = [make(cell, 0) for cell in cells]
        self._stop_at = stop_at
        self.told, self.heard = [], []

    def ask(self, count):
        asked, self._left = self._left[:count], self._left[count:]
        return asked

    def report(self, trial_id, epoch, score):
        self.heard.append((trial_id, epoch, score))
        return Decision.GO_ON if epoch < self._stop_at else Decision.STOP

    def tell(self, outcome):
        self.told.append(outcome)


def cell(position, depth, alpha=1.0):
    return {"positions": position, "depth": depth, "alpha": alpha}


def recording(made):
    return Recording(read_table(made[2]), "class_mean")


@pytest.mark.parametrize(
    "workers,order", [(1, [0, 1, 2, 3]), (2, [1, 2, 0, 3]), (3, [1, 0, 2, 3]), (9, [1, 3, 0, 2])]
)
def test_trials_end_in_the_order_of_simulated_workers(made, workers, order):
    """9, 3.5, 3.5 or 9, and 6 seconds: who is free first takes the next."""
    cells = [cell("mlp1", "last:12"), cell("mlp1", "last:1"), cell("out", "last:1")]
    if workers > 2:
        cells[2] = cell("out", "last:12")
    cells.append(cell("mlp1", "last:6"))
    table = recording(made)
    if workers == 3:  # the two long ones differ by noise only
        times = [table.replay(Listed(table.make, [each])) for each in cells]
        assert times == [1, 1, 1, 1]
    search = Listed(table.make, cells)
    assert table.replay(search, workers) == 4
    ids = [table.make(each, 0).trial_id for each in cells]
    seconds_of = {outcome.trial_id: outcome.device_s for outcome in search.told}
    free, ends = [0.0] * workers, []
    for trial in ids:  # an independent simulation
        worker = min(range(workers), key=lambda w: free[w])
        free[worker] += seconds_of[trial]
        ends.append((free[worker], trial))
    assert [outcome.trial_id for outcome in search.told] == [trial for _, trial in sorted(ends)]
    if workers < 3:
        assert [ids.index(outcome.trial_id) for outcome in search.told] == order


def test_an_outcome_is_the_record(made):
    table, store = recording(made), Store(made[0])
    cells = [cell("mlp1", "last:6"), cell("out", "last:12", 128.0)]
    search = Listed(table.make, cells)
    table.replay(search)
    for outcome in search.told:
        record = store.record(outcome.trial_id)
        assert (outcome.status, outcome.epochs) == (record.status, record.epochs_run)
        assert outcome.objective == record.objective("class_mean")
        assert (outcome.device_s, outcome.flops) == (record.cost.device_s, record.cost.flops)
    assert [outcome.status for outcome in search.told] == ["COMPLETE", "DIVERGED"]


def test_a_watched_trial_reports_its_curve_and_is_charged_for_it(made):
    table, store = recording(made), Store(made[0])
    search = Listed(table.make, [cell("mlp1", "last:6")], stop_at=3)
    table.replay(search)
    (outcome,) = search.told
    record, history = store.record(outcome.trial_id), store.history(outcome.trial_id)
    curve = [row["select"]["class_mean"] for row in history]
    assert search.heard == [(outcome.trial_id, e, curve[e - 1]) for e in (1, 2, 3)]
    assert (outcome.status, outcome.epochs, outcome.objective) == ("PRUNED", 3, curve[2])
    assert outcome.device_s == pytest.approx(0.3 * record.cost.device_s)
    whole = Listed(table.make, [cell("mlp1", "last:6")], stop_at=99)
    table.replay(whole)
    assert [epoch for _, epoch, _ in whole.heard] == list(range(1, 10))
    assert whole.told[0].status == "COMPLETE"


@pytest.mark.parametrize("values,seed", [(cell("q", "last:1"), 0), (cell("out", "last:1"), 7)])
def test_a_cell_that_the_table_lacks_is_named(made, values, seed):
    with pytest.raises(UserError, match=f"positions = {values['positions']}, .*seed {seed}"):
        recording(made).make(values, seed)


def task(made, log, table, budget="12", name="made"):
    return SearchTask(
        space=read_table(made[2]).space(),
        make=table.make,
        name=name,
        seed=1,
        budget=Budget.parse(budget),
        full_run_flops=read_table(made[2]).info.reference.flops,
        epochs=10,
        log=log,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "sobol", "tpe", "gp", "tpe+hyperband", "random+asha"])
def test_a_replay_goes_on_after_an_interruption(tmp_path, made, name):
    table = recording(made)
    table.replay(find_search(name)(task(made, tmp_path / "whole", table)))
    whole = (tmp_path / "whole").read_text()
    for lines in (1, 5, 12):
        (tmp_path / "part").write_text("".join(whole.splitlines(keepends=True)[:lines]))
        table.replay(find_search(name)(task(made, tmp_path / "part", table)))
        assert (tmp_path / "part").read_text() == whole


@pytest.mark.slow
def test_a_users_search_is_an_entry_point(tmp_path, made, monkeypatch):
    code = "def start(task):\n    from harness.search.catalogue import find_search\n"
    (tmp_path / "users_search.py").write_text(code + "    return find_search('sobol')(task)\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, f"{name}_search:start", "harness.searches")
        for name in ("users", "broken")
    )
    monkeypatch.setattr("harness.registry.entry_points", lambda group: entries)
    result = compare(tmp_path, made[2], "--search", "users,random", "--repeats", 2, "--budget", 3)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "studies" / "joint_space+searches"
    asked = asks(read_log(folder / "search-users-1.jsonl"))
    assert len(asked) >= 3  # 30 epochs; one that diverges takes fewer than 10
    assert "| users " in (folder / "report" / "report.md").read_text()
    broken = compare(tmp_path / "b", made[2], "--search", "broken", "--repeats", 1)
    assert broken.exit_code == 2 and "'broken' (entry point broken_search:start" in broken.stderr
    sweep = ["sweep", "--study", "joint_space", "--smoke", "--out", tmp_path, "--dry-run"]
    assert "Search: users over 4 configurations" in harness(*sweep, "--search", "users").output
    typo = harness(*sweep, "--search", "user")
    assert typo.exit_code == 2 and "Did you mean 'users'" in typo.stderr


@pytest.mark.slow
def test_a_replay_imports_no_torch(tmp_path, made):
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"main({['compare', '--search', 'random,tpe,metapeft', '--study', 'joint_space']!r} + "
        f"{['--replay', str(made[2]), '--repeats', '2', '--budget', '4']!r} + "
        f"{['--out', str(tmp_path)]!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'timm', 'ray'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "args,words",
    [
        (["--search", "tpee"], "Did you mean 'tpe'"),
        (["--search", "tpe+hyperbnd"], "Did you mean 'tpe+hyperband'"),
        (["--search", "random", "--seeds", "5"], "has 2 of every cell"),
        (["--search", "random", "--budget", "x"], "Bad --budget"),
        (["--search", "random", "--smoke"], "are for live trials"),
        (["--search", "cmaes"], "continuous"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, made, args, words):
    result = compare(tmp_path, made[2], *args)
    assert result.exit_code == 2, result.output
    assert words in result.stderr and result.stderr.strip().count("\n") == 0


@pytest.mark.slow
def test_a_replayed_run_has_no_trials_to_show_or_export(tmp_path, made):
    # Without --study, the table says which it is.
    args = ["compare", "--search", "random", "--replay", made[2], "--repeats", 2, "--out", tmp_path]
    assert harness(*args).exit_code == 0
    run = "joint_space+searches"
    for words in (["status", run], ["export", run, "--csv", str(tmp_path / "x.csv")]):
        result = harness(*words, "--out", tmp_path)
        assert result.exit_code == 2 and "replayed from a table" in result.stderr


@pytest.mark.slow
def test_controls_stand_beside_the_searches(tmp_path, made):
    store = Store(tmp_path)
    study = small_study()

    def controls(name, **values):
        values = {"options": {}, "positions": "q,mlp1", "depth": "last:2", **values}
        values["method"] = "metapeft"
        request = study.base.with_values(values, source="test")
        compared = Controls(
            request,
            seeds=(0, 1),
            study=study,
            run=Fake(store, lambda spec: 0.6 if spec.method == "metapeft" else 0.5),
            store=store,
            runtime=Runtime(),
        ).compare()
        folder = RunFolder.of(store, name)
        folder.path.mkdir(parents=True)
        write_comparison(folder, compared, {})
        return ["--search", "random,metapeft", "--repeats", 2, "--controls", name]

    result = compare(tmp_path, made[2], *controls("x+metapeft"))
    assert result.exit_code == 0, result.output
    report = tmp_path / "studies" / "joint_space+searches" / "report"
    text = (report / "report.md").read_text()
    assert "metapeft, one shot is better than lora, α = 4, all 4 sites" in text
    assert "| lora, γ shuffled over the sites" in text and "Its controls are at the end." in text
    assert (report / "controls.png").is_file() and (report / "arms.tex").is_file()
    assert "metapeft on lora and its controls" in (report / "index.html").read_text()
    other = compare(tmp_path, made[2], *controls("y+metapeft", **{"recipe.lr": 0.1}))
    assert other.exit_code == 2 and "--controls y+metapeft: its trials have other" in other.stderr
    none = compare(tmp_path, made[2], "--search", "random", "--controls", "joint_space+searches")
    assert none.exit_code == 2 and "compares no arms" in none.stderr


def test_another_studys_table_is_refused(tmp_path, made):
    result = harness(
        *("compare", "--search", "random", "--study", "depth_vs_position", "--replay", made[2]),
        *("--out", tmp_path),
    )
    assert result.exit_code == 2 and "a table of study joint_space" in result.stderr
