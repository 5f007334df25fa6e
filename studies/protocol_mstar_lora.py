"""LoRA's space of docs/protocol.md on MSTAR (natural to SAR): placement x alpha x rate.

As `protocol_synth_rs_lora`, on real images and a pretrained ViT-Tiny/16 at 96 px, with four
placements. The outer 24 pixels are blackened, because the background alone tells classes apart.

    harness sweep --study protocol_mstar_lora --weights vit_tiny.safetensors --data-root mstar

Cost: about 2.5 hours on 2 CPU cores (192 trials).
"""

from harness.spec import BackboneSpec, DataSpec, Recipe, TrialRequest
from harness.studies.protocol_synth_rs_lora import EVERY_LINEAR, strengths
from harness.study import Axis, Study, View

RATE = 0.05
"""r of docs/protocol.md, the choice of `protocol_mstar_pilot`."""


def real_data(data: DataSpec, epochs: int) -> TrialRequest:
    """LoRA at every linear map of ViT-Tiny, trained on real images."""
    return TrialRequest(
        method="lora",
        options={"rank": 4},
        positions=EVERY_LINEAR,
        backbone=BackboneSpec(name="vit_tiny_local", img_size=96),
        data=data,
        recipe=Recipe(epochs=epochs, batch_size=32, score_epochs="last"),
    )


def study() -> Study:
    every = ",".join(EVERY_LINEAR)
    return Study(
        name="protocol_mstar_lora",
        question="Which placement, strength and rate of LoRA does a dev set choose?",
        paper="none (docs/protocol.md)",
        base=real_data(
            DataSpec(
                name="mstar",
                options={
                    "imbalance": 10,
                    "largest": 130,
                    "grouped_by": "thirds",
                    "border_mask": 24,
                    "dev_per_class": 100,
                    "tail_seed": "trial",
                },
            ),
            epochs=7,
        ),
        axes=(
            Axis.named(
                "where",
                "placement",
                {
                    "Q+V": {"positions": "q,v", "depth": "all"},
                    "MLP1": {"positions": "mlp1", "depth": "all"},
                    "all": {"positions": every, "depth": "all"},
                    "all, last 6": {"positions": every, "depth": "last:6"},
                },
            ),
            *strengths(RATE),
        ),
        seeds=tuple(range(100, 112)),
        views=(View(kind="heatmap", rows="where", columns="alpha", title="Placement × alpha"),),
        fixed="rank 4, batch 32",
        smoke={
            "where": ("MLP1",),
            "recipe.lr": (RATE,),
            "recipe.epochs": (1,),
            "data.options.dev_per_class": (4,),
        },
    )
