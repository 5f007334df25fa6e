"""What `recommend` answers: the choice, what to expect of it, and how to train it for good.

Owns: this part of the Python interface, and how the answer is laid out. Must not know: how
anything is trained, the words of the answer.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from harness.reports.brief import LABEL, OUT, lines_under
from harness.reports.numbers.images import over_images
from harness.reports.text.recommended import recommended_words
from harness.search.recommended import CONFIG, Recommended


class Recommendation:
    """A LoRA that a handful of trainings chose; `print` shows why, and what was left out."""

    def __init__(self, found: Recommended) -> None:
        self.found = found
        """Every training with its record, and the plan."""

    @property
    def trial_id(self) -> str:
        """Of the training that was chosen, in the store."""
        return self.found.best.record.trial_id

    @property
    def test(self) -> tuple[float, float, float]:
        """Test class mean of that model in percent, and the ends of its interval over images."""
        scores = self.found.best.record.test
        assert scores is not None
        return (100 * scores.class_mean, *over_images(scores))

    @property
    def lora_config(self) -> dict[str, Any] | None:
        """Fields of a peft `LoraConfig`; None where peft cannot express it."""
        config = self.found.config
        return None if isinstance(config, str) else config

    @property
    def command(self) -> str:
        """That trains the configuration, and keeps its tensors."""
        root = self.found.folder.store.root
        place = "" if str(root) == OUT else f" --out {shlex.quote(str(root))}"
        return self.found.command + place

    def text(self, width: int | None = None) -> str:
        """The answer, a label before each line; of more than `width` characters it is broken."""
        found = self.found
        lines: list[str] = []
        for label, words in recommended_words(found).items():
            lines += lines_under(label, words, width)
        lines.append(f"{'Page':<{LABEL}}{found.folder.report / 'index.html'}")
        if isinstance(found.config, str):
            lines += lines_under("LoraConfig", f"none: {found.config}", width)
        else:
            lines.append(f"{'LoraConfig':<{LABEL}}{found.folder.path / CONFIG}")
            lines.append(json.dumps(found.config, indent=1))
        lines.append(f"{'Train':<{LABEL}}{self.command}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()
