"""Files of bad batches: what is written is what is read, and nothing else is read."""

import io
import json
import math
import pickle
import zipfile

import numpy as np
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.training.resilience import bad_batches

FACTS = bad_batches.BadStep(
    stage="stage3", step=12, reason="spike", loss=0.1 + 0.2, grad_norm=math.inf, rows=("a", "b")
)
BATCH = {
    "features": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "input_ids": np.arange(6, dtype=np.int32).reshape(2, 3),
}


def test_a_batch_comes_back_to_the_bit(tmp_path):
    batch = BATCH | {"features": BATCH["features"] * np.float32(np.nan)}
    found, facts = bad_batches.read_batch(
        bad_batches.save_batch(tmp_path, batch, facts=FACTS, keep=1)
    )
    assert facts == FACTS
    assert {name: (leaf.dtype, leaf.tobytes()) for name, leaf in found.items()} == {
        name: (leaf.dtype, leaf.tobytes()) for name, leaf in batch.items()
    }


def test_rows_that_are_not_finite_are_named():
    features = BATCH["features"].copy()
    assert bad_batches.not_finite(BATCH) == []
    features[1, 0, 1] = features[1, 2, 3] = np.inf
    assert bad_batches.not_finite({**BATCH, "features": features}) == [
        "features: 2 entries in rows 1"
    ]


def npy(array=None, *, header=None, raw=b""):
    """A .npy file; `header` replaces its own."""
    file = io.BytesIO()
    if header is None:
        np.save(file, array, allow_pickle=True)
        return file.getvalue()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + raw


def facts_of(**changes):
    told = {"stage": "s", "step": 1, "reason": "r", "loss": "1.0", "grad_norm": "1.0", "rows": [],
            "arrays": ["x"]}  # fmt: skip
    return npy(np.frombuffer(json.dumps({**told, **changes}).encode(), np.uint8))


class Evil:
    """Its pickle would write a file."""

    def __reduce__(self):
        return (open, ("pickle_was_run", "w"))


HOSTILE = {
    "an object array": ("x", npy(np.array([Evil()], object))),
    "a claim of more than there is": (
        "x",
        npy(header={"shape": (1 << 50,), "fortran_order": False, "descr": "<f4"}),
    ),
    "a negative shape": (
        "x",
        npy(header={"shape": (-1,), "fortran_order": False, "descr": "<f4"}),
    ),
    "more than it claims": (
        "x",
        npy(header={"shape": (1,), "fortran_order": False, "descr": "<f4"}, raw=b"12345678"),
    ),
    "no array": ("x", b"hello"),
    "an empty file": ("x", b""),
    "text in an array": ("x", npy(np.array(["a"]))),
    "a scalar": ("x", npy(np.float32(1))),
    "a pickle": ("x", pickle.dumps(Evil())),
    "facts without a step": ("facts", npy(np.frombuffer(b'{"stage": "s"}', np.uint8))),
    "facts of more": ("facts", facts_of(extra=1)),
    "facts with a step that is none": ("facts", facts_of(step="x")),
    "facts that are no JSON": ("facts", npy(np.frombuffer(b"{", np.uint8))),
    "facts that are a number": ("facts", npy(np.frombuffer(b"5", np.uint8))),
    "facts that are a list": ("facts", npy(np.frombuffer(b"[]", np.uint8))),
}


def write(path, **members):
    """An archive of a good batch with one array x, some of its members replaced."""
    good = {"facts": facts_of(), "x": npy(np.zeros((2, 2)))}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**good, **members}.items():
            archive.writestr(f"{name}.npy", data)


def test_the_archive_of_these_tests_is_good(tmp_path):
    write(tmp_path / "good.npz")
    arrays, facts = bad_batches.read_batch(tmp_path / "good.npz")
    assert list(arrays) == ["x"] and facts.step == 1


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_batch_is_refused_by_name(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, content = HOSTILE[case]
    write("bad.npz", **{name: content})
    with pytest.raises(UserError, match="bad.npz is not a batch of a skipped step"):
        bad_batches.read_batch("bad.npz")
    assert not (tmp_path / "pickle_was_run").exists()


def test_compressed_files_and_other_files_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("facts.npy", facts_of())
        archive.writestr("x", npy(np.zeros(1 << 20)))
    with pytest.raises(UserError, match="facts.npy is compressed"):
        bad_batches.read_batch(tmp_path / "bomb.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="not a batch of a skipped step"):
        bad_batches.read_batch(tmp_path / "text.npz")
    with pytest.raises(UserError, match="there is no file .*absent.npz; give one of RUN/bad_batc"):
        bad_batches.read_batch(tmp_path / "absent.npz")


def test_every_flipped_byte_is_read_as_it_was_or_refused(tmp_path):
    """The archive has a checksum for each array."""
    path = bad_batches.save_batch(tmp_path, BATCH, facts=FACTS, keep=1)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 150, replace=False):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(wrong))
        try:
            found, facts = bad_batches.read_batch(path)
        except UserError as error:
            assert "not a batch of a skipped step" in str(error)
            refused += 1
            continue
        assert facts == FACTS
        assert found.keys() == BATCH.keys()
        for name, leaf in found.items():
            np.testing.assert_array_equal(leaf, BATCH[name])
    assert refused > 75
