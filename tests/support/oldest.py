"""Print constraints: every requirement of a pyproject.toml at the oldest release it allows.

python tests/support/oldest.py pyproject.toml > constraints-oldest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib


def oldest(text):
    """One `name==version` for each `name[extra]>=version` of the requirements and all extras."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].values()
    needs = [*project["dependencies"], *(need for extra in extras for need in extra)]
    found = {}
    for need in needs:
        name, version = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", need).groups()
        assert found.setdefault(name, version) == version, f"{name} has two oldest releases"
    return [f"{name}=={version}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print("\n".join(oldest(file.read())))
