"""Which trained methods can be merged into a timm checkpoint, and written for Hugging Face peft."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.backbones import BACKBONES, fits
from test_exported import made_about

from harness.errors import UserError
from harness.export.merged import export_merged
from harness.export.trial import write_peft

DOC = Path(__file__).parent.parent / "docs" / "backbones.md"
METHODS = (
    *("linear_probe", "full", "bitfit", "lora", "rslora", "lora_plus", "lotr", "metapeft"),
    *("bottleneck", "adapter", "vpt_deep", "hf:lora", "hf:dora"),
)
FAMILIES = ("vit_pico", "DINOv3", "EVA-02", "EVA-02, fused", "BEiT", "SigLIP", "Swin")


def can(write, *given):
    try:
        write(*given)
    except UserError:
        return False
    return True


def exports_of(method, family, place):
    """As the table has it: what can be written of a method that was trained on a backbone."""
    if not fits(method, family):
        return "–"
    # Of peft's tuners, most have no setting for another strength than theirs.
    alpha = 1.0 if method.startswith("hf:") else 2.0
    known, state = made_about(BACKBONES[family], method, alpha=alpha)
    merged = can(export_merged, known, state, place / "merged")
    peft = can(write_peft, known, state, place / "peft")
    return " ".join([*(["merged"] if merged else []), *(["peft"] if peft else [])]) or "weights"


def documented():
    """Family -> method -> cell, of the table under *What can be exported*."""
    text = DOC.read_text().partition("## What can be exported")[2]
    lines = re.findall(r"^\|(.*)\|$", text, re.M)
    header, _, *rows = [[cell.strip().strip("`") for cell in line.split("|")] for line in lines]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_says_what_can_be_exported(family, tmp_path):
    found = {method: exports_of(method, family, tmp_path / method) for method in METHODS}
    assert found == documented()[family]


def test_the_table_has_these_rows_alone():
    table = documented()
    assert tuple(table) == FAMILIES and all(tuple(row) == METHODS for row in table.values())
