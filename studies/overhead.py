"""What each method costs beside its accuracy: training time and FLOPs, parameters, inference.

The paper gives hours per dataset and claims fewer than 800 parameters for MetaPEFT's strengths, but
no overhead. Time is that of this machine: read it as ratios within one run. `costs.csv` also has
the FLOPs of training, of scoring and of the test apart, and each trial's peak of memory: on a CPU
that of the whole worker, of which interpreter, libraries, backbone and data are most.

    harness sweep --study overhead --workers 1

Cost: 3 minutes on 2 CPU cores (27 trials of 6 to 23 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.tsne import study as tsne
from harness.study import Axis, Points, Study


def study() -> Study:
    methods = (
        "linear_probe",
        "vpt_shallow",
        "vpt_deep",
        "bitfit",
        "adapter",
        "adaptformer",
        "lora",
        "metapeft",
        "full",
    )
    return tsne().derive(
        name="overhead",
        question="What does each method cost in training and at inference?",
        paper="none",
        axes=(Axis(field="method", values=methods, label="method"),),
        views=(Points(rows="method", value="cost", title="Costs"),),
        fixed="each method at its default sites, no tuning; full fine-tuning at the same rate",
        smoke={"method": ("linear_probe", "lora"), "recipe.epochs": (1,)},
    )
