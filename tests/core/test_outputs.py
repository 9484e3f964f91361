"""A command replaces only what the same command made, and never what it reads."""

import os

import pytest

from ltu_jax.core import files, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.outputs import Maker

OURS = Maker(name="`ours`", later=("parity.json", "tokens/*"))
FILE = Maker(name="`ours`", folder=False, before=outputs.json_with("a", "b"))


def _make(place, maker=OURS, **contents):
    with files.atomic_dir(place, maker) as folder:
        for name, text in ({"x": "1"} | contents).items():
            (folder / name).write_text(text)
    return place


def _snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: (out / "thesis.tex").write_text("years"),
        lambda out: (out / "deep" / "er").mkdir(parents=True) or (out / "deep/er/t").touch(),
        lambda out: (out / "link").symlink_to("/etc"),
        lambda out: (out / ".hidden").write_text("x"),
        lambda out: (out / "mine").symlink_to("nowhere"),
        lambda out: (out / outputs.MARKER).unlink(),
        lambda out: (out / outputs.MARKER).write_text("{"),
        lambda out: files.write_json(out / outputs.MARKER, outputs.signature(Maker(name="x"))),
        lambda out: (out / "x").unlink() or (out / "x").mkdir() or (out / "x/y").touch(),
    ],
)
def test_a_folder_with_anything_of_somebody_else_stays(tmp_path, spoil):
    out = _make(tmp_path / "out")
    spoil(out)
    before = _snapshot(tmp_path)
    with pytest.raises(UserError, match=r"--out .*out"):
        outputs.claim(out, OURS)
    with pytest.raises(UserError):
        _make(out)
    assert _snapshot(tmp_path) == before


def test_what_is_ours_is_replaced(tmp_path):
    out = _make(tmp_path / "out")
    (out / "parity.json").touch()  # added later, by us
    (out / "tokens" / "a").mkdir(parents=True)
    (out / "tokens" / "a" / "b.npz").touch()
    (out / ".DS_Store").touch()
    (out / "empty").mkdir()
    (out / "x").unlink()
    _make(out, y="2")
    assert set(_snapshot(out)) == {"x", "y", outputs.MARKER}
    (tmp_path / "empty").mkdir()
    _make(tmp_path / "empty")
    before = Maker(name="`ours`", before=lambda path: ("old",) if (path / "old").exists() else None)
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "old").touch()
    _make(tmp_path / "older", before)
    with pytest.raises(UserError, match=r"made by `ours`, not by `theirs`"):
        _make(tmp_path / "older", Maker(name="`theirs`"))


def _spellings(folder):
    """Ways to write one folder, which is the working directory's `own`."""
    os.symlink(folder, folder.parent / "link")
    os.symlink("link", folder.parent / "link to link")
    return (
        folder, "own", "./own/", "own/../own", "link", "link to link", "link/.", "../" +
        f"{folder.parent.name}/own", f"{folder}/",
    )  # fmt: skip


def test_an_input_and_all_around_it_stay_however_they_are_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = _make(tmp_path / "own")  # even one that could be replaced
    (own / "clips").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (own / "clips" / "linked").symlink_to(tmp_path / "elsewhere")
    spellings = _spellings(own)
    inputs = [
        *spellings,
        *(f"{one}/x" for one in spellings),
        *(f"{one}/clips" for one in spellings),
    ]
    inputs += ["own/clips/linked", "own/clips/linked/gone", "own/clips/not there yet"]
    for out in (*spellings, tmp_path, ".", "..", "link/.."):
        for given in inputs:
            with pytest.raises(UserError, match="input|started in") as caught:
                outputs.claim(out, OURS, inputs=[None, given])
            assert str(out) in str(caught.value)
    (own / "clips" / "linked").unlink()
    (own / "clips").rmdir()
    assert outputs.claim("own", OURS, inputs=[None, "elsewhere", "own2"]) == own
    assert outputs.claim("own/inner", OURS, inputs=["own"]) == own / "inner"


def test_the_working_directory_is_not_replaced_under_ones_feet(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for out in (".", "..", "../../a", tmp_path / "a"):
        with pytest.raises(UserError, match="was started in"):
            outputs.claim(out, OURS)


@pytest.mark.parametrize(
    ("content", "taken"),
    [('{"a": 1, "b": 2}', True), ("", True), ('{"a": 1}', False), ("[]", False), ("x", False),
     ('{"a": ', False), ("[" * 100_000, False)],
)  # fmt: skip
def test_a_file_is_replaced_where_it_says_it_is_ours(tmp_path, content, taken):
    out = tmp_path / "plan.json"
    out.write_text(content)
    if taken:
        files.write_json(out, {"a": 3, "b": 4}, FILE)
        assert files.read_json(out) == {"a": 3, "b": 4}
    else:
        with pytest.raises(UserError, match=r"plan\.json is there already"):
            files.write_json(out, {"a": 3, "b": 4}, FILE)
        assert out.read_text() == content
    with pytest.raises(UserError, match="input"):
        outputs.claim(out, FILE, inputs=[out])


def test_places_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for out, maker in (
        ("file/below", OURS), ("file", OURS), ("loop", OURS), ("a\0b", OURS), ("folder", FILE),
        ("pipe", FILE), ("file/below", FILE), ("loop/x", FILE), ("x" * 300, OURS),
    ):  # fmt: skip
        with pytest.raises(UserError, match="--out"):
            outputs.claim(tmp_path / out, maker)


def test_joining_a_folder_changes_nothing_of_anybody_else(tmp_path):
    names = ("log.jsonl", "checkpoints")
    known = Maker(name="`ours`", before=lambda path: () if (path / "ours").exists() else None)
    out = tmp_path / "out"
    assert outputs.join(out, known, names=names) == out
    out.mkdir()
    (out / "thesis").write_text("years")
    (out / "log.jsonl").touch()  # empty: nothing to lose
    (out / "checkpoints").mkdir()
    assert outputs.join(out, known, names=names, inputs=[out / "thesis"]) == out
    with pytest.raises(UserError, match="read by this command"):
        outputs.join(out, known, names=names, inputs=[out])
    (out / "checkpoints" / "theirs").touch()
    with pytest.raises(UserError, match="'checkpoints/theirs'"):
        outputs.join(out, known, names=names)
    (out / "ours").touch()
    assert outputs.join(out, known, names=names) == out
    (out / "ours").unlink()
    files.write_json(out / outputs.MARKER, outputs.signature(known))
    assert outputs.join(out, known, names=names) == out
