"""Errors that the command line prints as one sentence instead of a traceback."""

from __future__ import annotations

import difflib
import errno
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LONGEST_GIVEN = 120
"""Characters of a name that an error repeats."""
ENDLESS = re.compile(r"\S{400,}")
MOST_LISTED = 20
"""Of more names than this, an error lists the nearest only."""
HERE = Path(__file__).parent
PYTHON = Path(traceback.__file__).parent
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a place that you may write to"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST), "name a place that can be made"),
    errno.EISDIR: "name a file that is no folder",
    errno.ENAMETOOLONG: "name a shorter place",
    errno.EINVAL: "name another place",
}
"""What helps where something cannot be written."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    # of searches
    **dict.fromkeys(("bohb", "hyperband"), ("tpe+hyperband",)),
    **dict.fromkeys(("asha", "successive_halving"), ("random+asha", "tpe+asha")),
    **dict.fromkeys(("bayesian", "bayes", "bo", "bayesian_optimization"), ("gp", "tpe")),
    **dict.fromkeys(("gaussian_process", "gpr"), ("gp",)),
    **dict.fromkeys(("cma", "cma_es", "evolution", "es"), ("cmaes",)),
    **dict.fromkeys(("population", "population_based_training", "genetic"), ("pbt",)),
    **dict.fromkeys(("qmc", "quasi_random"), ("sobol",)),
    **dict.fromkeys(("grid_search", "exhaustive"), ("grid",)),
    **dict.fromkeys(("random_search", "rs"), ("random",)),
    # of methods
    **dict.fromkeys(("vpt", "prompt", "prompts", "visual_prompt_tuning"), ("vpt_deep",)),
    **dict.fromkeys(("bias", "biases"), ("bitfit",)),
    **dict.fromkeys(("linear", "probe", "lp"), ("linear_probe",)),
    **dict.fromkeys(("finetune", "fine_tuning", "full_finetuning", "ft"), ("full",)),
    **dict.fromkeys(("meta_peft", "meta"), ("metapeft",)),
    # of positions
    **dict.fromkeys(("query", "wq", "q_proj"), ("q",)),
    **dict.fromkeys(("key", "wk", "k_proj"), ("k",)),
    **dict.fromkeys(("value", "wv", "v_proj"), ("v",)),
    **dict.fromkeys(("proj", "o", "wo", "o_proj", "attn_proj"), ("out",)),
    "fc1": ("mlp1",),
    "fc2": ("mlp2",),
    "attention": ("attn",),
    # of what choices are made by
    **dict.fromkeys(("accuracy", "acc", "top1"), ("micro",)),
    **dict.fromkeys(("balanced_accuracy", "macro"), ("class_mean",)),
    "loss": ("val_loss", "recipe.loss"),
    # of fields
    **dict.fromkeys(("lr", "learning_rate", "rate"), ("recipe.lr",)),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), ("recipe.epochs",)),
    **dict.fromkeys(("batch_size", "batch", "bs"), ("recipe.batch_size",)),
    **dict.fromkeys(("weight_decay", "wd"), ("recipe.weight_decay",)),
    "momentum": ("recipe.momentum",),
    **dict.fromkeys(("precision", "dtype", "amp", "fp16", "bf16"), ("recipe.precision",)),
    **dict.fromkeys(("rank", "r", "lora_r"), ("options.rank",)),
    **dict.fromkeys(("lora_alpha", "scaling", "strength"), ("alpha",)),
    **dict.fromkeys(("sites", "modules", "target_modules"), ("positions",)),
    **dict.fromkeys(("layers", "layer", "blocks"), ("depth",)),
    **dict.fromkeys(("data_share", "subset", "data_fraction"), ("data.train_share",)),
    "dataset": ("data.name",),
    **dict.fromkeys(("model", "arch", "network"), ("backbone.name",)),
    **dict.fromkeys(("img_size", "image_size", "resolution"), ("backbone.img_size",)),
    **dict.fromkeys(("val_split", "val_fraction", "validation_split"), ("data.val_fraction",)),
    **dict.fromkeys(("imbalance", "imb_factor"), ("data.options.imbalance",)),
}
"""What else things are called elsewhere -> what they are called here."""


class NotSavedError(RuntimeError):
    """A result could not be written, so nothing that follows could be either; the CLI exits 3."""


class UserError(ValueError):
    """A mistake in what the user asked for: the message says what, where and the remedy; exit 2.

    Of a word that nobody would read to its end, it repeats the beginning.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(ENDLESS.sub(lambda word: f"{word[0][:LONGEST_GIVEN]}...", message))


class TakenOver(UserError):
    """What this process was writing belongs to another by now, because this one was paused."""


class TrialsFailed(RuntimeError):
    """Trials ended with an error of their own. The others are in the store; the CLI exits 1."""


class Interrupted(RuntimeError):
    """The user stopped the work, which the same command continues; the CLI exits 130."""


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """Build the error for a name that does not exist, with the choices and what was meant: by
    another name of it, or else the nearest."""
    choices, given = sorted(allowed), given[:LONGEST_GIVEN]
    near = difflib.get_close_matches(given, choices, n=5, cutoff=0.5)
    same = [name for name in choices if name.casefold() == given.casefold()]
    meant = _meant(given, choices) or same or near[:1]
    hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    listed = _in_families(choices) if len(choices) > MOST_LISTED else choices
    if len(listed) > MOST_LISTED:
        listed = [*near, f"{len(choices)} in all"]
    allowed = f"Allowed: {', '.join(listed)}" if choices else "There is none"
    return UserError(f"Unknown {kind} {given!r}.{hint} {allowed}.")


def _in_families(choices: Sequence[str]) -> list[str]:
    """`torchvision:CIFAR10` and its like as one `torchvision:NAME`."""
    families = {f"{name.split(':')[0]}:NAME" if ":" in name else name for name in choices}
    return sorted(families)


def begun(kind: str, given: str, names: Iterable[str]) -> str | None:
    """The one name that begins so; None where there is none.

    Raises:
        UserError: several begin so; lists them.
    """
    found = sorted(name for name in names if given and name.startswith(given))
    if len(found) > 1:
        listed = ", ".join([*found[:MOST_LISTED], *(["..."] if len(found) > MOST_LISTED else [])])
        raise UserError(f"{len(found)} {kind}s begin with {given!r}, write more of it: {listed}.")
    return found[0] if found else None


def names_for(word: str) -> tuple[str, ...]:
    """What is called so elsewhere, by its names here; fields with dots between their parts."""
    return SYNONYMS.get(word.rpartition(".")[2].lower().replace("-", "_").replace(" ", "_"), ())


def _meant(given: str, choices: list[str]) -> list[str]:
    """The names of what is meant that are among the choices, or lead on from one of them."""
    found = []
    for name in names_for(given):
        last, first = name.rpartition(".")[2], re.split(r"[.+]", name)[0]
        if name in choices or last in choices:
            found.append(name if name in choices else last)
        elif first in choices and name != given:
            found.append(name)
    return found


def _is_between(file: Path) -> bool:
    """Whether a file is of the harness, Python or torch, by which code of others is called."""
    is_python = file.is_relative_to(PYTHON) and "site-packages" not in file.parts
    return file.is_relative_to(HERE) or is_python or "torch" in file.parts


def remedy(error: OSError) -> str:
    """What to do about something that cannot be written, for the middle of a sentence."""
    return REMEDIES.get(error.errno or 0, "see to that")


@contextmanager
def code_of(whose: str, part: str) -> Iterator[None]:
    """Turn what somebody's code raises into one sentence; the block does nothing but call it.

    A `UserError` is its own sentence, unsaved results end everything, and Ctrl-C is the user's.

    Raises:
        UserError: it raised anything else; says what, and in which line of theirs.
    """
    try:
        yield
    except (UserError, NotSavedError, KeyboardInterrupt):
        raise
    except BaseException as error:  # code of others may end in any way, SystemExit included
        lines = str(error).strip().splitlines()
        words = type(error).__name__ + (f" ({lines[0][:200]})" if lines else "")
        # Before the code that was called come this function and the block.
        called = traceback.extract_tb(error.__traceback__)[2:]
        theirs = [frame for frame in called if not _is_between(Path(frame.filename))]
        theirs = theirs or called
        at = [frame for frame in theirs if frame.filename == theirs[0].filename][-1:]
        where = "".join(f", at {Path(frame.filename).name}, line {frame.lineno}" for frame in at)
        raise UserError(f"{whose} raised {words} in {part}{where}.") from error


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a failure to write into one sentence.

    Raises:
        NotSavedError: the file cannot be written; names it and the reason.
    """
    try:
        yield
    except OSError as error:
        raise NotSavedError(
            f"Results cannot be saved: {path}: {error.strerror or error}. What was saved is whole; "
            f"{remedy(error)} and give the command again."
        ) from error
