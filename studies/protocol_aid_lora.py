"""LoRA's space of docs/protocol.md on AID (natural to optical remote sensing).

As `protocol_mstar_lora`; AID is read as a folder with its split.

    harness sweep --study protocol_aid_lora --weights vit_tiny.safetensors --data-root aid

Cost: about 6 hours on 2 CPU cores (192 trials).
"""

from harness.spec import DataSpec
from harness.studies.protocol_mstar_lora import real_data
from harness.studies.protocol_mstar_lora import study as mstar
from harness.studies.protocol_synth_rs_lora import strengths
from harness.study import Study

RATE = 0.05
"""r of docs/protocol.md, the choice of `protocol_aid_pilot`."""


def study() -> Study:
    of_mstar = mstar()
    return of_mstar.derive(
        name="protocol_aid_lora",
        base=real_data(
            DataSpec(
                name="folder",
                options={
                    "imbalance": 10,
                    "largest": 100,
                    "grouped_by": "thirds",
                    "dev_per_class": 30,
                    "tail_seed": "trial",
                },
            ),
            epochs=8,
        ),
        axes=(of_mstar.axes[0], *strengths(RATE)),
        smoke={**of_mstar.smoke, "recipe.lr": (RATE,)},
    )
