"""The loss, the schedule, the rules for stopping and choosing, heads, FLOPs, whole trials."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from support.few import FEW
from support.records import TINY

from harness.errors import UserError
from harness.insertion.method import get_method
from harness.metrics import class_distances
from harness.model.heads import make_head
from harness.reports.numbers.embedding import plane, silhouettes
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.runner.trial import run_trial
from harness.spec import Placement, Recipe, TrialRequest
from harness.store.store import Store
from harness.training.classifier import Classifier
from harness.training.clock import Stopwatch
from harness.training.evaluation import flops_per_image
from harness.training.train import logit_adjustment, stalled


def run(tmp_path, base=TINY, **values):
    request = base.with_values(values, source="test")
    record = run_trial(resolve(request, Runtime()), Runtime(), Store(tmp_path))
    path = tmp_path / "trials" / record.trial_id / "history.jsonl"
    history = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return record, history


def test_logit_adjustment_by_hand():
    shift = logit_adjustment(torch.tensor([6, 3, 1]), tau=2.0)
    assert shift.tolist() == pytest.approx([2 * math.log(p) for p in (0.6, 0.3, 0.1)])
    logits, label = torch.tensor([[1.0, 0.5, -0.2]]), torch.tensor([2])
    loss = torch.nn.functional.cross_entropy(logits + shift, label)
    weights = [p**2 * math.exp(z) for p, z in zip((0.6, 0.3, 0.1), (1.0, 0.5, -0.2), strict=True)]
    assert float(loss) == pytest.approx(-math.log(weights[2] / sum(weights)), rel=1e-5)


def test_early_stop_needs_three_poor_epochs():
    assert not stalled([0.5, 0.5, 0.5])
    assert stalled([0.5, 0.5, 0.5, 0.5])
    assert stalled([0.5, 0.502, 0.501, 0.5025])
    assert not stalled([0.5, 0.502, 0.501, 0.504])
    assert stalled([0.2, 0.6, 0.5, 0.5, 0.6])


def test_heads_start_at_the_class_means():
    drawn = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    means = torch.nn.functional.normalize(drawn, dim=1)
    features = 5 * means
    cosine = make_head(Recipe(), means, seed=0)
    logits = cosine(features)
    assert logits.diagonal().tolist() == pytest.approx([25.0] * 4, rel=1e-5)
    assert torch.allclose(logits, cosine(features * 3))
    assert sum(p.numel() for p in cosine.parameters()) == 4 * 8
    plain = make_head(Recipe(head="linear"), means, seed=0)
    assert torch.allclose(plain(features), features @ means.T)
    assert sum(p.numel() for p in plain.parameters()) == 4 * 8 + 4
    drawn = make_head(Recipe(head_init="random"), means, seed=0)
    again = make_head(Recipe(head_init="random"), means, seed=0)
    assert torch.equal(drawn.weight, again.weight) and not torch.equal(drawn.weight, means)


def test_a_classifier_saves_peft_and_head_tensors_only(backbones):
    _, model = backbones["vit_pico"]
    method = get_method("lora")
    placement = Placement.of(["q"], [11], 1.0)
    attachment = method.attach(model, placement, method.parse_options({}), seed=0)
    head = make_head(Recipe(), torch.randn(15, 64), seed=0)
    saved = set(Classifier(model, attachment, head).state_dict())
    attachment.detach()
    names = {"attachment.deltas.11:q.down", "attachment.deltas.11:q.up", "head.weight"}
    assert saved == names


@pytest.mark.parametrize(
    "position,first_backward",
    [("mlp2", 0), ("mlp1", 4), ("out", 8), ("q", 9)],
)
def test_flops_reach_down_to_the_lowest_site(backbones, position, first_backward):
    """Against the formula: a block has 12 d² multiply-adds a token and two d t² of attention."""
    _, model = backbones["vit_pico"]
    d, tokens, rank = 64, 17, 4
    method = get_method("lora")
    placement = Placement.of([position], [9, 10, 11], 1.0)
    attachment = method.attach(model, placement, method.parse_options({"rank": rank}), seed=0)
    head = make_head(Recipe(), torch.randn(15, d), seed=0)
    forward, backward = flops_per_image(
        Classifier(model, attachment, head), torch.randn(1, 3, 32, 32)
    )
    attachment.detach()
    attention = 2 * 2 * tokens**2 * d
    block = 2 * 12 * d * d * tokens + attention
    lora = 3 * 2 * tokens * rank * (5 * d if position.startswith("mlp") else 2 * d)
    stem = 2 * (256 * 16 * 27 + 64 * 32 * 144 + 16 * 64 * 288 + 16 * 64 * 64)
    assert forward == pytest.approx(12 * block + lora + stem + 2 * 15 * d, rel=1e-6)
    # Above the lowest block all of two blocks; in it, what lies after the site.
    part = 2 * first_backward * d * d * tokens + (2 * attention if position == "q" else 0)
    full = 2 * (block + attention) + part
    # Each low-rank pair adds two weight gradients and, above the lowest, input gradients.
    assert full < backward < full + 2.2 * lora + 0.01 * full


@pytest.mark.slow
def test_a_record_tells_scores_counts_and_costs(tmp_path):
    record, history = run(tmp_path)
    assert record.status == "COMPLETE"
    assert record.trainable_params == record.expected_params == 4 * 5 * 64
    assert record.head_params == 15 * 64
    assert sum(record.test.class_counts) == 60
    assert sum(record.select.class_counts) == 728
    train_images = 911 - 728
    assert record.cost.images_backward == train_images
    assert record.cost.images_forward == train_images + 728 + 60
    assert record.cost.flops > 0 and record.cost.device_s > 0
    assert history[0]["select"]["class_mean"] == record.select.class_mean
    assert "torch" in record.provenance


@pytest.mark.parametrize("device,seconds", [("cpu", 2 + 3), ("cuda", 2 + 7)])
def test_a_gpu_is_charged_while_it_is_held_and_a_cpu_for_its_own_time(monkeypatch, device, seconds):
    clocks = {"perf_counter": 100.0, "process_time": 5.0}
    for name in clocks:
        monkeypatch.setattr(f"harness.training.clock.time.{name}", lambda name=name: clocks[name])
    watch = Stopwatch(torch.device(device), earlier=(10.0, 2.0))
    clocks.update(perf_counter=107.0, process_time=8.0)
    assert watch.spent == (17.0, seconds)


@pytest.mark.slow
def test_methods_see_the_same_split_and_only_choices_differ(tmp_path):
    a, _ = run(tmp_path, **{"recipe.lr": 1e-9})
    b, _ = run(tmp_path, **{"recipe.lr": 1e-9, "positions": "q"})
    assert a.select.micro == b.select.micro and a.test.per_class == b.test.per_class


def test_divergence_is_a_result(tmp_path):
    record, history = run(tmp_path, **{"recipe.lr": 1e30, "recipe.epochs": 3})
    assert record.status == "DIVERGED"
    assert record.select is None and record.test is None and record.error is None
    assert record.objective("class_mean") == pytest.approx(1 / 15)
    assert len(history) < 3


def test_a_failure_is_recorded_with_its_traceback(tmp_path, monkeypatch):
    def explode(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("harness.runner.trial.TrainingLoop", explode)
    record, _ = run(tmp_path)
    assert record.status == "FAILED"
    assert "RuntimeError: out of luck" in record.error and "Traceback" in record.error


@pytest.mark.slow
def test_cosine_schedule_best_epoch_and_paper_protocol(tmp_path):
    record, history = run(
        tmp_path, **{"recipe.epochs": 4, "recipe.epoch_rule": "best", "data.select_on": "test"}
    )
    rate = 0.01 * math.sqrt(128 / 128)
    wanted = [rate * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]
    assert [row["lr"] for row in history] == pytest.approx(wanted)
    scores = [row["select"]["class_mean"] for row in history]
    assert record.tested_epoch == scores.index(max(scores))
    assert record.select == record.test
    assert record.cost.images_backward == 4 * 911


@pytest.mark.slow
def test_learning_rate_follows_the_square_root_of_the_batch(tmp_path):
    _, history = run(tmp_path, **{"recipe.batch_size": 32})
    assert history[0]["lr"] == pytest.approx(0.005)


@pytest.mark.slow
def test_a_finished_trial_is_not_trained_again(tmp_path, monkeypatch):
    first, _ = run(tmp_path)
    monkeypatch.setattr("harness.runner.trial.TrainingLoop", None)  # trained again, it would fail
    again, _ = run(tmp_path)
    assert again == first


@pytest.mark.slow
def test_training_leaves_the_shared_backbone_as_it_was(tmp_path):
    before, _ = run(tmp_path, seed=3)
    for method in ("full", "bitfit"):
        run(tmp_path, method=method, positions=None, depth="all", seed=3)
    request = TINY.with_values({"seed": 3}, source="test")
    spec = resolve(request, Runtime())
    after = run_trial(spec, Runtime(), Store(tmp_path / "fresh"))
    assert after.test == before.test


def test_defaults_are_the_released_recipe():
    recipe = TrialRequest().recipe
    assert (recipe.lr, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (
        0.01,
        128,
        0.9,
        5e-4,
    )
    assert (recipe.epochs, recipe.head, recipe.head_scale, recipe.tau) == (10, "cosine", 25.0, 1.0)


@pytest.mark.slow
def test_kept_features_are_those_that_were_tested(tmp_path):
    spec = resolve(TINY, Runtime())
    record = run_trial(spec, Runtime(keep_features=True), Store(tmp_path))
    trial = tmp_path / "trials" / spec.trial_id
    kept, images = np.load(trial / "features.npz"), plane(trial)
    groups = {
        group: tuple(sorted(images[images["group"] == group]["class"].unique()))
        for group in record.test.groups
    }
    distance = class_distances(kept["features"].astype(float), kept["labels"], groups)
    assert distance == pytest.approx(record.test.distance, abs=1e-3)
    assert len(images) == sum(record.test.class_counts)
    # Silhouette of one image by its definition, with cosine distance.
    unit = kept["features"].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    apart = 1 - unit @ unit[0]
    labels = kept["labels"]
    own = apart[(labels == labels[0]) & (np.arange(len(labels)) > 0)].mean()
    other = min(apart[labels == c].mean() for c in set(labels.tolist()) - {int(labels[0])})
    assert silhouettes(trial).iloc[0] == pytest.approx((other - own) / max(own, other), abs=1e-4)


def test_one_image_of_each_class_or_one_class_alone_has_no_silhouette(tmp_path):
    for labels in ([0, 1, 2], [1, 1, 1]):
        np.savez(tmp_path / "features.npz", features=np.eye(3), labels=labels, groups=["a"] * 3)
        assert silhouettes(tmp_path) is None


def test_without_features_there_is_no_picture_of_them(tmp_path):
    record, _ = run(tmp_path)
    assert plane(tmp_path / "trials" / record.trial_id) is None
    assert silhouettes(tmp_path / "trials" / record.trial_id) is None


class Killed(BaseException):
    """As a process that ends in the middle of a trial."""


def killed_after(epoch):
    def goes_on(done, scores):
        if done == epoch:
            raise Killed
        return True

    return goes_on


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"recipe.epoch_rule": "best"}, {"method": "adapter"}])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_watched_trial_continues_from_its_last_epoch_as_if_never_stopped(
    few_images, tmp_path, values, epoch
):
    base = FEW.with_values({"positions": None, **values, "recipe.epochs": 4}, source="test")
    spec = resolve(base, Runtime())
    whole = run_trial(spec, Runtime(), Store(tmp_path / "whole"))
    store = Store(tmp_path / "parts")
    with pytest.raises(Killed):
        run_trial(spec, Runtime(), store, killed_after(epoch))
    (store.trials / spec.trial_id / "claim.json").unlink()
    asked = []

    def goes_on(done, scores):
        asked.append(done)
        return True

    record = run_trial(spec, Runtime(), store, goes_on)
    assert asked == list(range(epoch, 4))  # the last report again, as its answer may be lost
    same = {"select", "test", "epochs_run", "tested_epoch"}
    assert record.model_dump(include=same) == whole.model_dump(include=same)
    assert store.history(spec.trial_id) == Store(tmp_path / "whole").history(spec.trial_id)
    assert not list((tmp_path / "parts").rglob("checkpoint*"))


@pytest.mark.slow
def test_a_method_with_a_state_of_its_own_starts_again(few_images, tmp_path):
    values = {"method": "metapeft", "recipe.epochs": 3}
    spec = resolve(FEW.with_values(values, source="test"), Runtime())
    whole = run_trial(spec, Runtime(), Store(tmp_path / "whole"))
    store = Store(tmp_path / "parts")
    with pytest.raises(Killed):
        run_trial(spec, Runtime(), store, killed_after(2))
    (store.trials / spec.trial_id / "claim.json").unlink()
    record = run_trial(spec, Runtime(), store, lambda done, scores: True)
    assert record.select == whole.select and record.learned == whole.learned


LATER = [{"after": 2, "values": {"alpha": 3.0, "recipe.lr": 0.02}}]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_changed_trial_goes_on_from_the_one_it_changes_as_if_trained_whole(
    few_images, tmp_path, schedule
):
    """Stopped, copied, killed once more on the way; against one that was trained from its spec."""
    values = {"recipe.epochs": 5, "recipe.schedule": schedule}
    parent = resolve(FEW.with_values(values, source="test"), Runtime())
    child = resolve(FEW.with_values({**values, "changes": LATER}, source="test"), Runtime())
    assert child.parent.trial_id == parent.trial_id != child.trial_id
    whole = run_trial(child, Runtime(), Store(tmp_path / "whole"))
    store = Store(tmp_path / "parts")
    stopping = Runtime(keep_checkpoints=True)
    assert run_trial(parent, stopping, store, lambda done, scores: done < 2).status == "PRUNED"
    store.branch(child)
    asked = []
    with pytest.raises(Killed):
        run_trial(
            child, stopping, store, lambda *now: asked.append(now[0]) or killed_after(4)(*now)
        )
    assert asked == [2, 3, 4]  # from where its parent was stopped
    (store.trials / child.trial_id / "claim.json").unlink()
    asked = []
    record = run_trial(child, stopping, store, lambda done, scores: asked.append(done) or True)
    assert asked == [4]
    same = {"select", "test", "epochs_run", "tested_epoch"}
    assert record.model_dump(include=same) == whole.model_dump(include=same)
    assert store.history(child.trial_id) == Store(tmp_path / "whole").history(child.trial_id)
    assert record.cost.images_backward == whole.cost.images_backward
    rates = [row["lr"] for row in store.history(child.trial_id)]
    shape = [(1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]
    factors = shape if schedule == "cosine" else [1] * 5
    start = [FEW.recipe.lr] * 2 + [0.02] * 3
    scale = math.sqrt(FEW.recipe.batch_size / 128)
    assert rates == pytest.approx([scale * a * b for a, b in zip(start, factors, strict=True)])


@pytest.mark.slow
def test_strengths_change_when_they_are_to(tmp_path):
    """Alpha 0 to the end is the linear probe; alpha 0 after one epoch is not, nor is alpha 1."""
    scores = {}
    for name, alpha, changes in (
        ("off", 0.0, []),
        ("on", 1.0, []),
        ("turned off", 1.0, [{"after": 1, "values": {"alpha": 0.0}}]),
        ("as it was", 1.0, [{"after": 1, "values": {"alpha": 1.0}}]),
    ):
        values = {"recipe.epochs": 2, "recipe.lr": 1.0, "alpha": alpha, "changes": changes}
        record, _ = run(tmp_path / name, TINY, **values)
        scores[name] = record.select.loss
    assert scores["as it was"] == scores["on"]
    assert len(set(scores.values())) == 3


@pytest.mark.slow
def test_the_state_of_another_training_is_not_gone_on_from(few_images, tmp_path):
    """The parent went on beyond the change before its copy began."""
    values = {"recipe.epochs": 5}
    parent = resolve(FEW.with_values(values, source="test"), Runtime())
    child = resolve(FEW.with_values({**values, "changes": LATER}, source="test"), Runtime())
    store = Store(tmp_path)
    run_trial(parent, Runtime(keep_checkpoints=True), store, lambda done, scores: done < 3)
    store.branch(child)
    record = run_trial(child, Runtime(), store, lambda done, scores: True)
    assert record.select == run_trial(child, Runtime(), Store(tmp_path / "whole")).select


@pytest.mark.parametrize(
    "values,words",
    [
        ({"changes": [{"after": 5, "values": {"alpha": 2.0}}]}, "below 5"),
        ({"changes": [*LATER, *LATER]}, "rising"),
        ({"changes": [{"after": 2, "values": {"recipe.tau": 2.0}}]}, "recipe.tau"),
        ({"changes": LATER, "method": "metapeft"}, "learns its strengths"),
        (
            {"changes": [{"after": 2, "values": {"placement": {"1.q": 1.0}}}]}
            | {"positions": None, "depth": "all", "placement": {"0.q": 1.0}},
            "sites must stay",
        ),
    ],
)
def test_changes_that_make_no_sense_are_refused(values, words):
    request = TINY.with_values({"recipe.epochs": 5, **values}, source="test")
    with pytest.raises(UserError, match=words):
        resolve(request, Runtime())


@pytest.mark.slow
def test_a_stopped_trial_is_pruned_without_a_test_and_is_no_answer_to_others(few_images, tmp_path):
    spec = resolve(FEW.with_values({"recipe.epochs": 4}, source="test"), Runtime())
    store = Store(tmp_path)
    record = run_trial(spec, Runtime(), store, lambda done, scores: done < 2)
    assert (record.status, record.epochs_run, record.test) == ("PRUNED", 2, None)
    assert record.select is not None
    assert store.state(spec.trial_id) == "absent"
    assert run_trial(spec, Runtime(), store).status == "COMPLETE"
    assert store.state(spec.trial_id) == "done"
