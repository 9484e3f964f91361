"""Run folders that are not there: a lost mount is an error and no new run."""

import json

import pytest

from ltu_jax import train
from ltu_jax.core import paths
from ltu_jax.core.errors import UserError

STAGE, CURRICULUM = "--config=configs/stage3.py:mini", "--config=configs/curriculum.py:mini"
MUST = "--config.checkpoint.must_exist=True"


@pytest.mark.parametrize("config", [STAGE, CURRICULUM])
def test_a_run_that_must_be_there_is_not_begun(config, tmp_path):
    run = tmp_path / "mount" / "run"
    with pytest.raises(UserError, match=r"holds no checkpoint.*--config\.checkpoint\.must_exist"):
        train.main([config, f"--config.run_dir={run}", MUST])
    assert not run.exists()
    for name in ("tagging", "stage1", "stage2", "stage3", "."):
        (run / name / "checkpoints/7").mkdir(parents=True)
        (run / name / "log.jsonl").write_text(json.dumps({"step": 7}) + "\n")
    with pytest.raises(UserError, match="no weights in"):  # the next thing that is missing
        train.main([config, f"--config.run_dir={run}", MUST, "--config.weights.whisper=none"])


def test_later_stages_of_a_curriculum_may_be_new():
    config = train.parse_config([CURRICULUM, MUST, "--config.weights.tltr=T"])
    stages = train.resolve(config)
    assert [stage["checkpoint"]["must_exist"] for stage in stages] == [True, False, False]


def test_a_disk_that_is_not_mounted_is_no_empty_disk(tmp_path, monkeypatch):
    table, place = tmp_path / "fstab", tmp_path / "a disk"
    place.mkdir()
    monkeypatch.setattr(paths, "FSTAB", table)
    assert paths.unmounted(place / "run") is None  # there is no such table
    escaped = str(place).replace(" ", r"\040")
    table.write_text(
        f"# {place}x\nnone swap swap\n/dev/sdb1 / ext4 defaults 0 1\nhost:/x {escaped} nfs"
    )
    assert paths.unmounted(tmp_path / "run") is None
    with pytest.raises(UserError, match="nothing is mounted now"):
        train.main([STAGE, f"--config.run_dir={place / 'runs/a'}"])
    assert not list(place.iterdir())
    monkeypatch.setattr(paths, "MOUNTS", tmp_path / "mounts")
    paths.MOUNTS.write_text(f"host:/x {escaped} nfs rw 0 0\n")
    assert paths.unmounted(place / "runs/a") is None
