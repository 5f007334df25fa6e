"""MetaPEFT's space of docs/protocol.md on MSTAR; see `protocol_synth_rs_gamma`.

    harness sweep --study protocol_mstar_gamma --weights vit_tiny.safetensors --data-root mstar

Cost: about 2 hours on 2 CPU cores (96 trials).
"""

from harness.studies.protocol_mstar_lora import RATE
from harness.studies.protocol_mstar_lora import study as lora
from harness.studies.protocol_synth_rs_gamma import of_gamma
from harness.study import Study


def study() -> Study:
    return of_gamma(lora(), RATE)
