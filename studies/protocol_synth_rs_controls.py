"""Exploratory list of docs/protocol.md, 2, on synth-rs: does the bi-level problem add anything?

Gamma by the training loss (single-level), and gammas that sites share. What is made of learned
strengths (uniform alpha at their mean; random, weakest and gradient-norm half of the sites) needs
them first:

    harness sweep --study protocol_synth_rs_controls
    harness train --method metapeft --alpha 4 --set options.outer_lr=0.3 --set recipe.lr=0.2
        --study protocol_synth_rs_controls --seeds 16 --controls

Cost: about 30 minutes on 2 CPU cores (80 trials), estimated from protocol_synth_rs_gamma.
"""

from pydantic import JsonValue

from harness.studies.protocol_synth_rs_variants import at_one_cell
from harness.study import Study

VARIANTS: dict[str, dict[str, JsonValue]] = {
    "bi-level": {},
    "single-level": {"options.variant": "single_level"},
    "γ per position": {"options.gamma_per": "position"},
    "γ per block group": {"options.gamma_per": "block_group"},
    "one γ": {"options.gamma_per": "model"},
}


def study() -> Study:
    return at_one_cell(
        "protocol_synth_rs_controls", "What of γ do the bi-level problem and sites add?", VARIANTS
    )
