"""How long a store with very many made-up trials takes to read: python tests/big_store.py 100000"""

from __future__ import annotations

import sys

from harness.bench.stores import big_study as big_study
from harness.bench.stores import fill as fill
from harness.bench.stores import measure
from harness.reports.files.write import write_report

if __name__ == "__main__":
    for row in measure(int(sys.argv[1]), write_report):
        print(f"{row.trials} trials, {row.command}: {row.seconds:.1f} s")
