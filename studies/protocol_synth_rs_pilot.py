"""The pilot of docs/protocol.md on synth-rs: which rate do both spaces start from?

LoRA at every linear map, alpha 4, five rates a factor of 4 apart, on seed 99, which nothing else
uses. The best by the dev set is r, and the ranges are frozen.

    harness sweep --study protocol_synth_rs_pilot

Cost: about 90 seconds on 2 CPU cores (5 trials).
"""

from harness.studies.protocol_synth_rs_lora import study as lora
from harness.study import Axis, Points, Study

RATES = (0.003125, 0.0125, 0.05, 0.2, 0.8)


def pilot(lora: Study) -> Study:
    """Five rates of LoRA at every linear map."""
    return lora.derive(
        name=lora.name.replace("_lora", "_pilot"),
        question="Which rate does LoRA at every linear map take?",
        base=lora.base.with_values({"alpha": 4.0}, source=lora.name),
        axes=(Axis(field="recipe.lr", values=RATES, label="learning rate"),),
        seeds=(99,),
        views=(Points(rows="recipe.lr", title="Learning rate"),),
        fixed="LoRA rank 4 at every linear map, alpha 4, batch 32",
        smoke={"recipe.lr": (0.05,), "recipe.epochs": (1,), "data.options.dev_per_class": (4,)},
    )


def study() -> Study:
    return pilot(lora())
