"""The laws of the house: packages stand in one order, and each foreign library has one door."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The packages in their order; a file imports from its own package or from packages further left.
ORDER = (
    "ltu_jax.core", "ltu_jax.sources", "ltu_jax.preprocessing", "ltu_jax.models",
    "ltu_jax.checkpoint", "ltu_jax.weights", "ltu_jax.clients", "data_pipelines.measures",
    "data_pipelines.metadata", "data_pipelines.real",
    "data_pipelines.records", "data_pipelines.manifests", "data_pipelines.input",
    "ltu_jax.generation", "ltu_jax.training", "ltu_jax.planning", "ltu_jax.inference",
    "ltu_jax.evaluation", "ltu_jax.serving", "ltu_jax.shipping",
    "configs", "data_pipelines.open_asqa", "data_pipelines.mini", "data_pipelines.speech",
    "data_pipelines.doctor",
    "data_pipelines",
    "ltu_jax",  # the command lines; the package itself only offers `load` lazily
)  # fmt: skip
DOORS = {
    "flax": ("ltu_jax/models/",),
    # transformers has its ClapModel in PyTorch only: a baseline, which no other code needs.
    "torch": ("ltu_jax/weights/files/torch_file.py", "ltu_jax/clients/clap.py"),
    "av": ("ltu_jax/preprocessing/formats/ffmpeg.py",),
    "tensorflow": ("data_pipelines/",),
    "tensorflow_datasets": ("data_pipelines/",),
    "apache_beam": ("data_pipelines/",),
    "qwix": ("ltu_jax/models/int8.py",),
    "starlette": ("ltu_jax/serving/",),
    "uvicorn": ("ltu_jax/serving/",),
    "h11": ("ltu_jax/serving/",),
    "python_multipart": ("ltu_jax/serving/",),
    "prometheus_client": ("ltu_jax/serving/",),
    "ml_collections": ("configs/", "ltu_jax/train.py"),
    "etils": ("ltu_jax/core/paths.py",),
    "fsspec": ("ltu_jax/core/paths.py",),
    "gcsfs": ("ltu_jax/core/paths.py",),
    "tensorstore": ("ltu_jax/core/objects.py",),
}
SOURCES = sorted(
    path
    for folder in ("ltu_jax", "configs", "data_pipelines")
    for path in (ROOT / folder).rglob("*.py")
)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _place(module: str) -> int:
    while module not in ORDER:
        module = module.rpartition(".")[0]
    return ORDER.index(module)


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_left_and_through_the_doors(path):
    relative = str(path.relative_to(ROOT))
    module = _module(path)
    for name in _imports(path):
        top = name.partition(".")[0]
        if top in ("ltu_jax", "configs", "data_pipelines") and name != "ltu_jax":
            if module == "ltu_jax":
                continue  # the lazy front door names what it opens on
            assert _place(name) <= _place(module), f"{relative} imports {name} from further right"
        doors = DOORS.get(top)
        assert doors is None or relative.startswith(doors), f"{relative} imports {name}"


def test_no_two_test_files_share_a_name():
    """pytest imports them by name alone, and one of the two is then missing from the suite."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_public_classes_or_files_of_the_product_share_a_name():
    classes = Counter(
        node.name
        for path in SOURCES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in classes.items() if count > 1] == []
    files = Counter(path.name for path in SOURCES if not path.name.startswith("__"))
    assert [name for name, count in files.items() if count > 1] == []


def test_the_project_refers_to_nothing_outside_itself():
    for path in [*SOURCES, ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text()
        assert "../" + "shared" not in text and "/" + "work/" not in text, path
