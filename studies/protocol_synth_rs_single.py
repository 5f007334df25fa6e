"""Arms of one run of docs/protocol.md on synth-rs: the head alone, and gamma at its defaults.

    harness sweep --study protocol_synth_rs_single

Cost: about 9 minutes on 2 CPU cores (32 trials).
"""

from harness.studies.protocol_synth_rs_lora import RATE
from harness.studies.protocol_synth_rs_lora import study as lora
from harness.study import Axis, Points, Study


def of_one_run(lora: Study, rate: float) -> Study:
    """Arms that look at one trial; LoRA's are cells of its space."""
    return lora.derive(
        name=lora.name.replace("_lora", "_single"),
        question="What do the head alone, and γ at its defaults, reach in one run?",
        base=lora.base.with_values({"recipe.lr": rate}, source=lora.name),
        axes=(
            Axis.named(
                "arm",
                "arm",
                {
                    "linear probe": {
                        "method": "linear_probe",
                        "options": {},
                        "positions": None,
                    },
                    "MetaPEFT, defaults": {
                        "method": "metapeft",
                        "options": {"base_options": {"rank": 4}},
                    },
                },
            ),
        ),
        views=(Points(rows="arm", title="One run"),),
        fixed="batch 32, rate r",
        smoke={"recipe.epochs": (1,), "data.options.dev_per_class": (4,)},
    )


def study() -> Study:
    return of_one_run(lora(), RATE)
