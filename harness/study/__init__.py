"""A study: one question, the axes that answer it, and how the answer is shown.

What a study file imports stands here: `from harness.study import Axis, Study`.
"""

from harness.metrics import Metric as Metric
from harness.metrics import Objective as Objective
from harness.study.axes import Axis as Axis
from harness.study.axes import Range as Range
from harness.study.axes import Switches as Switches
from harness.study.figures import Bubbles as Bubbles
from harness.study.figures import Embedding as Embedding
from harness.study.figures import Points as Points
from harness.study.figures import View as View
from harness.study.study import Study as Study
