"""The documentation as tests see it: pages, links, blocks of code, and what is typed in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "FINDINGS.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
"""All that a user reads, but for reports and the changelog."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXCERPT = "# excerpt"
"""First line of a block of Python that is not whole, so that nobody can run it."""


class Block(NamedTuple):
    """A block of code in a page."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks():
    """Every block of every page, in order."""
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def typed():
    """Words of every line of a shell block, with the block; shell variables have made-up values."""
    for block in blocks():
        if block.language in ("", "bash"):
            code = re.sub(r"\\\n\s*", " ", block.code)
            code = re.sub(r"\$\{\w+\[[^]]*\]\}", "q", code)
            for line in re.sub(r"\$\w+", "2", code).splitlines():
                if block.language == "bash" or line.startswith(("harness ", "make ")):
                    words = shlex.split(line.split("$(")[0].split("=(")[0], comments=True)
                    if words:
                        yield block, words


def harness_lines():
    """What stands behind `harness` on every line that calls it, with the block."""
    for block, words in typed():
        if "harness" in words:
            yield block, words[words.index("harness") + 1 :]


def prose(page):
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def inline(page):
    """What stands in backticks in a page's prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(text):
    """Anchors of a page's headings, as code hosts make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
        found.add(re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
    return found
