"""The pages: the README stays a page, results are current, what is cited and linked is there."""

import re
from pathlib import Path

import pytest

from benchmarks import results_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tpu_scripts").glob("*.md")]
SOURCES = [
    path
    for folder in ("ltu_jax", "configs", "data_pipelines")
    for path in (ROOT / folder).rglob("*.py")
]


def test_the_readme_is_a_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 9_000 and len(text.splitlines()) <= 130


def test_results_name_no_folder_of_one_machine():
    for path in results_page.MEASURED.glob("*.json"):
        assert re.findall(r'"/(?:tmp|root|home|work|Users)/[^"]*"', path.read_text()) == [], path


def test_a_stored_run_is_named_from_its_runs_folder_on():
    run = {"config": {"checkpoint": "/somewhere/clone/runs/demo/stage3/checkpoints/3", "seed": 1}}
    stored = results_page.without_home(run)
    assert stored["config"] == {"checkpoint": "runs/demo/stage3/checkpoints/3", "seed": 1}
    assert results_page.without_home(stored) == stored
    assert results_page.without_home({"seconds": {}}) == {"seconds": {}}


def test_the_results_page_is_current():
    text = results_page.PAGE.read_text()
    assert results_page.filled(text) == text, "run: python -m benchmarks.results_page"


def test_every_result_has_a_command():
    assert not results_page.unlisted(), "add it to COMMANDS in benchmarks/results_page.py"


def test_every_cited_fact_is_on_its_page():
    there = set(
        re.findall(r"^(\d+)\. |^- \*\*(\d+\w)\*\*", (ROOT / "docs/facts.md").read_text(), re.M)
    )
    known = {number or letter for number, letter in there}
    for path in SOURCES:
        for cited in re.findall(r"facts\s(\d+\w?(?:(?:,| and)\s\d+\w?)*)", path.read_text()):
            assert set(re.findall(r"\d+\w?", cited)) <= known, path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_files_of_ours_that_pages_and_docstrings_name_are_there():
    folders = "ltu_jax|data_pipelines|configs|tests|docs|benchmarks|tpu_scripts"
    for path in [*PAGES, *SOURCES]:
        if path.name == "CHANGELOG.md":
            continue  # it names what has moved
        for name in re.findall(rf"\b(?:{folders})/[\w./-]*\w\.(?:py|md|sh)\b", path.read_text()):
            assert "NAME" in name or (ROOT / name).exists(), (path, name)


def test_the_tree_of_the_architecture_page_names_what_is_there():
    tree = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    package = ROOT
    for line in tree.strip().splitlines():
        names = re.split(r"\s{2,}", line.strip())[0]
        if not line.startswith(" "):
            package = ROOT / names
            assert package.is_dir(), names
            continue
        for name in names.split():
            assert (package / f"{name}.py").exists() or (package / name).is_dir(), (package, name)
