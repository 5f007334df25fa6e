"""mkdocs: pages of the repository that lie outside of docs/, and a check that nothing is fetched.

The home page is README.md. What docs link to elsewhere in the repository (FINDINGS.md, reports of
the gallery with their figures) is taken in below `repository/`, at the path that it has here, and
links are turned to it. So the same files read well on a code host and in the site. Owns: which
files come in, and links. Must not know: what stands in them.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
HOME = {"README.md": "index.md"}
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
FETCHED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")
"""What a browser would load from elsewhere; links of `<a>` are followed by people only."""


def place(path: str) -> str:
    """Where a file of the repository lies in the site, by their paths from either root."""
    return HOME.get(path) or (path[5:] if path.startswith("docs/") else f"repository/{path}")


def targets(text: str) -> Iterator[str]:
    """Files that a page links to, as it names them; what stands in code is no link."""
    for part in CODE.split(text)[::2]:
        yield from (m[2] for m in LINK.finditer(part) if "://" not in m[2] and ":" not in m[2])


def linked(path: str, target: str) -> str:
    """Path from the root of the repository of what the page `path` names `target`."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def turned(text: str, path: str) -> str:
    """A page with its links turned to where files lie in the site."""

    def turn(match: re.Match[str]) -> str:
        if ":" in match[2]:
            return match[0]
        there = place(linked(path, match[2]))
        return match[1] + posixpath.relpath(there, posixpath.dirname(place(path))) + match[3]

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(turn, part) for part in parts[::2]]
    return "".join(parts)


def outside(root: Path = ROOT) -> list[str]:
    """Files outside of docs/ that the site needs: the home page, and all that is linked from there
    on, by their paths from the root."""
    found: list[str] = []
    ahead = ["README.md", *(str(p.relative_to(root)) for p in sorted(root.glob("docs/**/*.md")))]
    seen = set(ahead)
    while ahead:
        path = ahead.pop(0)
        if not path.startswith("docs/"):
            found.append(path)
        if path.endswith(".md"):
            text = (root / path).read_text(encoding="utf-8")
            new = [p for t in targets(text) if (root / (p := linked(path, t))).is_file()]
            ahead += [p for p in dict.fromkeys(new) if p not in seen]
            seen.update(new)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    for path in outside():
        files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = Path(os.path.abspath(page.file.abs_src_path or "")).relative_to(ROOT)
    return turned(markdown, source.as_posix())


def on_post_build(config: MkDocsConfig) -> None:
    from mkdocs.exceptions import PluginError

    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css") and not path.is_relative_to(
            Path(config.site_dir) / "repository" / "reports"
        ):
            found = FETCHED.search(path.read_text(encoding="utf-8"))
            if found or (path.suffix == ".css" and re.search(r"url\(.?https?:", path.read_text())):
                raise PluginError(f"{path} loads something from elsewhere: {found}")
