"""Files that survive a crash: written whole or not at all, or line by line.

Owns: atomic writes, append-only files of JSON lines, files of tensors. Must not know: what they
hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, saving

if TYPE_CHECKING:
    from torch import Tensor


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        NotSavedError: it cannot be made.
    """
    with saving(path):
        path.mkdir(parents=True, exist_ok=True)


def refuse_other(path: Path, flag: str, what: str, is_one: Callable[[Path], bool]) -> None:
    """Whether a file is there that is not of the kind to be written, and would be lost.

    Raises:
        UserError: it is; names the option that asked for it.
        NotSavedError: it cannot be looked at.
    """
    with saving(path):
        is_other = path.is_file() and path.stat().st_size > 0 and not is_one(path)
    if is_other:
        raise UserError(f"{flag} {path} holds something other than {what}: name another file.")


def refuse_absent(root: Path) -> None:
    """Whether there is a store at all.

    Raises:
        UserError: there is none; says how another is named.
    """
    if not root.is_dir():
        raise UserError(f"There is no store {root}: name the one that is meant with --out.")


def has_key(path: Path, key: bytes) -> bool:
    """Whether a file is Parquet with a key in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return key in (pq.read_metadata(path).metadata or {})
    except pa.ArrowException:
        return False


def append_line(
    path: Path, *rows: dict[str, Any], may_write: Callable[[], None] | None = None
) -> None:
    """Append a line of JSON, or several at once.

    `may_write` raises if another process writes the file by now. It is called between opening and
    writing: whoever takes over first puts another file in this one's place, which the line then
    cannot reach, however long this process is paused in between.

    Raises:
        NotSavedError: it cannot be written; the file may then end in a torn line.
    """
    with saving(path), path.open("a") as file:
        if may_write is not None:
            may_write()
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path, *, mend: bool = False) -> list[dict[str, Any]]:
    """The lines of an append-only file, without a last line torn by a crash; none without a file.

    `mend` also removes that line, and puts a new file in the old one's place, so that an earlier
    writer that was paused has nothing to append to; only the file's writer may.

    Raises:
        UserError: another line is damaged, or one is no object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = []
    for index, line in enumerate(lines):
        wrong = UserError(f"{path}, line {index + 1} is damaged; move the file away.")
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            if index < len(lines) - 1:
                raise wrong from error
            break
        if not isinstance(row, dict):
            raise wrong
        rows.append(row)
    if mend:
        whole = b"".join(line + b"\n" for line in lines[: len(rows)])
        write_atomically(path, whole.decode())
    return rows


def write_atomically(path: Path, text: str, *, may_write: Callable[[], None] | None = None) -> None:
    """Write a file so that readers see the old one or the whole new one, also after a power cut.

    `may_write`, as in `append_line`, is called before the new one takes its place.

    Raises:
        NotSavedError: it cannot be written.
    """
    with saving(path), replacing(path) as part:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if may_write is not None:
            may_write()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place of this process beside a file: what is written there takes the file's place at the
    end, and is removed where that does not come.

    Raises:
        UserError: a device is there, or a pipe, whose place no file may take.
        NotSavedError: it cannot take the place.
    """
    is_named_device = path.is_symlink() and path.is_relative_to("/dev")  # as /dev/stdout
    if is_named_device or (path.exists() and not path.is_file() and not path.is_dir()):
        raise UserError(f"{path} is no file but a device or a pipe: name a file.")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        with saving(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, with the mode that the user's new files have.

    `safetensors.torch.save_file` makes its files for their owner alone.

    Raises:
        NotSavedError: it cannot be written.
    """
    from safetensors.torch import save  # imports torch, which readers of records need not

    with saving(path):
        path.write_bytes(save(tensors))
