"""What the words of a report's answer mean, in a sentence each, to stand beside them.

Owns: these definitions. Must not know: where they are shown.
"""

from __future__ import annotations

TERMS = {
    "Choice": "What a user without the test set would take: best on the split that choices are "
    "made on, averaged over seeds.",
    "Front": "The configurations that no other is better than in one objective without being worse "
    "in another, on the split that choices are made on.",
    "Trained": "The one configuration that was trained.",
    "Difference": "Of every cell that both runs have with the same seed: second run minus first.",
    "Counted": "What was counted; nothing was trained.",
    "Test": "Its score on images that entered no choice. With ±: the 95 % Student-t interval of "
    "the mean over seeds.",
    "Hindsight": "The best on test, which nobody can know before testing everything, and how far "
    "the choice lies below it.",
    "Cost": "Device time of all trials that this answer rests on, summed over devices.",
    "Caveat": "What must be known beside the score.",
    "Next": "The command that goes on from here.",
}
"""Label of a line -> its meaning."""
WORDS = {
    "class mean": "Accuracy averaged over classes, each class counting the same.",
    "group mean": "Accuracy averaged over the groups of classes.",
    "micro": "Share of all images that were classified rightly.",
    "head, medium, tail": "Groups of classes by their number of training images, most to fewest.",
    "seed": "Number that fixes the random choices of a training; seeds differ by chance alone.",
    "diverged": "The loss stopped being finite; scored as guessing.",
    "device time": "Time for which a trial held its device; on a CPU, its own CPU time.",
}
"""Words of tables and figures -> their meaning."""
