"""A bounded folder of tensors that can be computed again, `<store>/cache`.

Owns: its files, who fills one, and which are removed to make room. Must not know: what the tensors
are, when they are needed.

Each file holds the tensors of one pass, batch by batch, and then a description with a checksum of
each. Files appear whole, by rename; any of them, or the folder, may be deleted at any moment.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

NAME = "cache"
"""Of the folder, in its store."""

TAIL = struct.Struct("<QI")
"""At a file's end: length of the description before it, and its checksum."""


@dataclass(frozen=True)
class KeptFolder:
    """The folder, with at most so many bytes in it."""

    root: Path
    budget: int

    def names(self, key: str) -> set[str]:
        """Files that are there under a key."""
        with suppress(OSError):
            return {each.name for each in (self.root / key).iterdir()}
        return set()

    def open(self, key: str, name: str) -> KeptTensors | None:
        """A file that is there and whole at its end; one that is damaged is removed."""
        path = self.root / key / name
        try:
            file = path.open("rb")
        except OSError:
            return None
        try:
            file.seek(-TAIL.size, os.SEEK_END)
            end = file.tell()
            length, checksum = TAIL.unpack(file.read())
            file.seek(end - length)
            text = file.read(length)
            if zlib.crc32(text) != checksum:
                raise ValueError("damaged")
            found = KeptTensors(path, file, json.loads(text))
        except (OSError, ValueError):
            file.close()
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # the last use, by which room is made
        return found

    @contextmanager
    def filling(self, key: str, name: str) -> Iterator[bool]:
        """Whether this process may fill files of that name now, because no other does."""
        try:
            (self.root / key).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / key / f"{name}.lock")
            lock.acquire(timeout=0)
        except (OSError, Timeout):
            yield False
            return
        try:
            yield True
        finally:
            with suppress(OSError):
                lock.release()

    def new(self, key: str, name: str) -> NewTensors:
        """A file to be filled; nobody sees it before it is published."""
        return NewTensors(self, self.root / key / name)

    @property
    def size(self) -> int:
        """Bytes that it holds now."""
        return sum(size for _, size, _ in self._files())

    def make_room(self, newest: Path) -> None:
        """Remove what was used least recently, beyond the budget, but not the newest file."""
        with suppress(OSError, Timeout), FileLock(self.root / "room.lock", timeout=1):
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            for _, size, path in files:
                if total <= self.budget:
                    return
                if path != newest and path.suffix != ".lock":
                    with suppress(OSError):
                        path.unlink()
                    total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Last use, bytes and path of every file."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path


class KeptTensors:
    """The tensors of one file, to be read in their order."""

    def __init__(self, path: Path, file: BinaryIO, about: dict[str, Any]) -> None:
        self._path, self._file = path, file
        self._shapes: list[list[int]] = about["shapes"]
        self._strides: list[list[int]] = about["strides"]
        self._checksums: list[int] = about["checksums"]
        self._dtype: torch.dtype = getattr(torch, about["dtype"])
        self._next = 0
        self.about: dict[str, Any] = about["about"]
        """What was said of them when they were kept."""
        file.seek(0)

    def __len__(self) -> int:
        return len(self._shapes)

    def read(self) -> Tensor | None:
        """The next tensor, on the CPU; None if it is damaged, and then the file is removed.

        It has the strides that it had, and lies in memory of torch's own: by both, a library may
        choose how it sums.
        """
        tensor = torch.empty(self._shapes[self._next], dtype=self._dtype)
        content = bytes_of(tensor)
        with suppress(OSError):
            count = self._file.readinto(content)  # type: ignore[attr-defined]
            if count == len(content) and zlib.crc32(content) == self._checksums[self._next]:
                strides = self._strides[self._next]
                self._next += 1
                if tuple(strides) == tensor.stride():
                    return tensor
                return torch.empty_strided(tensor.shape, strides, dtype=self._dtype).copy_(tensor)
        self.remove()
        return None

    def remove(self) -> None:
        """Delete the file, which is not what it should be."""
        with suppress(OSError):
            self._path.unlink()

    def close(self) -> None:
        self._file.close()


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's values, in rows: its own memory where it lies so on the CPU, else a copy."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


class NewTensors:
    """A file that is being filled; what cannot be written is given up without a word."""

    def __init__(self, folder: KeptFolder, path: Path) -> None:
        self._folder, self._path = folder, path
        self._part = path.with_name(f"{path.name}.{os.getpid()}.part")
        self._shapes: list[list[int]] = []
        self._strides: list[list[int]] = []
        self._checksums: list[int] = []
        self._dtype = torch.float32
        self._file: BinaryIO | None = None
        with suppress(OSError):
            self._file = self._part.open("wb")

    def add(self, tensor: Tensor) -> None:
        """Keep a tensor after those before it, all of one type."""
        if self._file is None:
            return
        content = bytes_of(tensor)
        self._dtype = tensor.dtype
        self._shapes.append(list(tensor.shape))
        self._strides.append(list(tensor.stride()))
        self._checksums.append(zlib.crc32(content))
        try:
            self._file.write(content)
        except OSError:
            self.give_up()

    def publish(self, about: dict[str, Any]) -> None:
        """Make the file visible, all of it at once, with what is to be said of it."""
        if self._file is None:
            return
        dtype = str(self._dtype).removeprefix("torch.")
        layout = {"shapes": self._shapes, "strides": self._strides, "dtype": dtype}
        known = {**layout, "checksums": self._checksums, "about": about}
        text = json.dumps(known).encode()
        try:
            self._file.write(text + TAIL.pack(len(text), zlib.crc32(text)))
            self._file.close()
            self._part.replace(self._path)
        except OSError:
            self.give_up()
            return
        self._file = None
        self._folder.make_room(self._path)

    def give_up(self) -> None:
        """Leave nothing behind; after `publish`, do nothing."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
            with suppress(OSError):
                self._part.unlink()
