"""LoRA's space of docs/protocol.md on synth-rs: placement x alpha x rate, a seed at a time.

A seed is one replicate of the whole procedure: it draws the tail, the dev set and everything that
chance decides in training. Choices are made on the dev set; nobody reads a test score before the
analysis.

    harness sweep --study protocol_synth_rs_lora

Cost: about 2.2 hours on 2 CPU cores (512 trials).
"""

from harness.spec import DataSpec, Position, Recipe, TrialRequest
from harness.study import Axis, Study, View

RATE = 0.2
"""r of docs/protocol.md, the choice of `protocol_synth_rs_pilot`."""
EVERY_LINEAR: tuple[Position, ...] = ("q", "k", "v", "out", "mlp1", "mlp2")


def strengths(rate: float) -> tuple[Axis, Axis]:
    """The strength grid that both spaces share: four levels of alpha squared times rate."""
    return (
        Axis(field="alpha", values=(4.0, 1.0), label="alpha"),
        Axis(field="recipe.lr", values=(rate, 4 * rate), label="learning rate"),
    )


def study() -> Study:
    return Study(
        name="protocol_synth_rs_lora",
        question="Which placement, strength and rate of LoRA does a dev set choose?",
        paper="none (docs/protocol.md)",
        base=TrialRequest(
            method="lora",
            options={"rank": 4},
            positions=EVERY_LINEAR,
            data=DataSpec(name="synth-rs", options={"dev_per_class": 100, "tail_seed": "trial"}),
            recipe=Recipe(epochs=8, batch_size=32, crop_scale_min=0.9, score_epochs="last"),
        ),
        axes=(
            Axis.named(
                "where",
                "placement",
                {
                    "Q+V": {"positions": "q,v"},
                    "MLP1": {"positions": "mlp1"},
                    "ATTN": {"positions": "q,k,v,out"},
                    "all": {"positions": ",".join(EVERY_LINEAR)},
                },
            ),
            Axis(field="depth", values=("last:12", "last:6"), label="depth (last N blocks)"),
            *strengths(RATE),
        ),
        seeds=tuple(range(100, 116)),
        views=(View(kind="heatmap", rows="where", columns="depth", title="Placement × depth"),),
        fixed="rank 4, batch 32",
        smoke={
            "where": ("MLP1",),
            "depth": ("last:6",),
            "recipe.lr": (RATE,),
            "recipe.epochs": (1,),
            "data.options.dev_per_class": (4,),
        },
    )
