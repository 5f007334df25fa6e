"""Which search finds a good configuration for its cost? All of them on the space of `joint_space`.

Hypothesis (the paper): trying every cell costs too much, and learned strengths find good values in
one run. Searches are judged at equal cost: choices are made on validation and scored on test, with
random search as the line to beat.

    harness sweep --study search_comparison        # live: trials that joint_space has are not rerun
    harness compare --search all --replay          # from the table of joint_space, in minutes

Cost: live, up to 24 full runs for each of 6 searches and 3 repeats, and a run with learned
strengths; trials of a finished `joint_space` are free. Recipe: see `depth_vs_position`.
"""

from harness.studies.joint_space import study as joint_space
from harness.study import Study


def study() -> Study:
    return joint_space().derive(
        name="search_comparison",
        question="Which search finds the best position, depth and strength for its cost?",
        paper="none (its claim on search cost)",
        searches="all",
    )
