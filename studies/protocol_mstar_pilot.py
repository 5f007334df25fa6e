"""The pilot of docs/protocol.md on MSTAR; see `protocol_synth_rs_pilot`.

    harness sweep --study protocol_mstar_pilot --weights vit_tiny.safetensors --data-root mstar

Cost: about 4 minutes on 2 CPU cores (5 trials).
"""

from harness.studies.protocol_mstar_lora import study as lora
from harness.studies.protocol_synth_rs_pilot import pilot
from harness.study import Study


def study() -> Study:
    return pilot(lora())
