"""The pilot of docs/protocol.md on AID; see `protocol_synth_rs_pilot`.

    harness sweep --study protocol_aid_pilot --weights vit_tiny.safetensors --data-root aid

Cost: about 8 minutes on 2 CPU cores (5 trials).
"""

from harness.studies.protocol_aid_lora import study as lora
from harness.studies.protocol_synth_rs_pilot import pilot
from harness.study import Study


def study() -> Study:
    return pilot(lora())
