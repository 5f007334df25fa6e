"""One-run arms of docs/protocol.md on MSTAR; see `protocol_synth_rs_single`.

    harness sweep --study protocol_mstar_single --weights vit_tiny.safetensors --data-root mstar

Cost: about 25 minutes on 2 CPU cores (24 trials).
"""

from harness.studies.protocol_mstar_lora import RATE
from harness.studies.protocol_mstar_lora import study as lora
from harness.studies.protocol_synth_rs_single import of_one_run
from harness.study import Study


def study() -> Study:
    return of_one_run(lora(), RATE)
