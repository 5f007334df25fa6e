"""MetaPEFT's space of docs/protocol.md on synth-rs: start of gamma x rate x outer rate.

Choosing sites is gamma's task, so none is left out. The two outer rates are 0.03, whose steps move
gamma as far here as 0.001 does in DOTA's 2,580, and ten times that.

    harness sweep --study protocol_synth_rs_gamma

Cost: about 50 minutes on 2 CPU cores (128 trials).
"""

from harness.studies.protocol_synth_rs_lora import RATE, strengths
from harness.studies.protocol_synth_rs_lora import study as lora
from harness.study import Axis, Study, View


def of_gamma(lora: Study, rate: float) -> Study:
    """The cells of MetaPEFT beside LoRA's, on the same data with the same seeds."""
    return lora.derive(
        name=lora.name.replace("_lora", "_gamma"),
        question="Which start, rate and outer rate of γ does a dev set choose?",
        base=lora.base.with_values(
            {"method": "metapeft", "options": {"base_options": {"rank": 4}}}, source=lora.name
        ),
        axes=(
            Axis(field="options.outer_lr", values=(0.03, 0.3), label="outer rate"),
            *strengths(rate),
        ),
        views=(
            View(
                kind="heatmap",
                rows="options.outer_lr",
                columns="alpha",
                title="Outer rate × start of γ",
            ),
        ),
        fixed="γ at 72 sites of LoRA rank 4, batch 32, K = 3, ratio 0.2, first order",
        smoke={
            "options.outer_lr": (0.3,),
            "recipe.lr": (rate,),
            "recipe.epochs": (1,),
            "data.options.dev_per_class": (4,),
        },
    )


def study() -> Study:
    return of_gamma(lora(), RATE)
