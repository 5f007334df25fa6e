"""What a record says of the harness's own source."""

from __future__ import annotations

import shutil
import subprocess

from harness.runner import provenance


def test_a_repository_around_an_installed_package_is_not_its_own(tmp_path, monkeypatch):
    installed = tmp_path / ".venv" / "provenance.py"
    installed.parent.mkdir()
    shutil.copyfile(provenance.__file__, installed)
    (tmp_path / "mine").write_text("x")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "mine"), ("commit", "-qm", "m")):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(installed))
    provenance.provenance.cache_clear()
    try:
        assert provenance.provenance("cpu")["git"] == "not a git checkout"
        subprocess.run([*git, "add", ".venv"], check=True)
        provenance.provenance.cache_clear()
        assert provenance.provenance("cpu")["git"].endswith("-dirty")
    finally:
        provenance.provenance.cache_clear()
