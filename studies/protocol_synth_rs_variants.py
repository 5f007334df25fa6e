"""Exploratory list of docs/protocol.md, 1, on synth-rs: how D_val is made, and what sees it.

The paper's defaults take one batch of D_val per outer step, whatever the ratio, and adjust the
outer loss by the training images' prior, whatever D_val's shares. Here an outer step also sees all
of D_val, and D_val may bring its own prior. At the start and rate of LoRA's standing baseline and
the larger of both outer rates, at which gamma can move furthest.

    harness sweep --study protocol_synth_rs_variants

Cost: about 2 hours on 2 CPU cores (160 trials), estimated from protocol_synth_rs_gamma.
"""

from pydantic import JsonValue

from harness.studies.protocol_synth_rs_gamma import study as gamma
from harness.studies.protocol_synth_rs_lora import RATE
from harness.study import Axis, Points, Study

ALL: dict[str, JsonValue] = {"options.outer_batches": "all"}
VARIANTS: dict[str, dict[str, JsonValue]] = {
    "default": {},
    "D_val held out": {"options.d_val": "held_out"},
    "K = 1": {"options.inner_steps": 1},
    "all of D_val": ALL,
    "all of D_val, ratio 0.05": {**ALL, "options.ratio": 0.05},
    "all of D_val, ratio 0.5": {**ALL, "options.ratio": 0.5},
    "class-balanced": {**ALL, "options.sampling": "class_balanced"},
    "class-balanced, own prior": {
        **ALL,
        "options.sampling": "class_balanced",
        "options.outer_prior": "d_val",
    },
    "tail-heavy": {**ALL, "options.sampling": "tail_heavy"},
    "tail-heavy, own prior": {
        **ALL,
        "options.sampling": "tail_heavy",
        "options.outer_prior": "d_val",
    },
}


def at_one_cell(name: str, question: str, variants: dict[str, dict[str, JsonValue]]) -> Study:
    """Variants of MetaPEFT at one cell of its space, on the protocol's data and seeds."""
    space = gamma()
    values = {"alpha": 4.0, "recipe.lr": RATE, "options.outer_lr": 0.3}
    return space.derive(
        name=name,
        question=question,
        paper="none (docs/protocol.md, exploratory)",
        base=space.base.with_values(values, source=name),
        axes=(Axis.named("variant", "variant", variants),),
        views=(Points(rows="variant", title=question),),
        fixed="γ at 72 sites of LoRA rank 4 from 4, outer rate 0.3, batch 32, rate r",
        smoke={
            "variant": tuple(variants)[-2:],
            "recipe.epochs": (1,),
            "data.options.dev_per_class": (4,),
        },
    )


def study() -> Study:
    return at_one_cell(
        "protocol_synth_rs_variants", "How should D_val be made, and what sees it?", VARIANTS
    )
