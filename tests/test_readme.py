"""The made parts of the README are what its script makes from the stored results and files."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_holds_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("update_readme", ROOT / "docs/update_readme.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (ROOT / "README.md").read_text()
    assert script.rewritten(text) == text, "run: python docs/update_readme.py"


def test_the_readme_opens_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines[0] == "# ltu_jax" and lines[3].startswith("make demo")
    assert lines[4].startswith("make test")
