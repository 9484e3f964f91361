"""Records are the same bytes from one process, several, a Dask cluster and a killed writing."""

import dataclasses
import hashlib
import pickle
import signal

import pytest

from data_pipelines.records import shard_writer
from data_pipelines.records.beam_runner import BeamRunner
from data_pipelines.records.record_files import RecordStore
from data_pipelines.records.write import write_records
from ltu_jax.core.errors import UserError
from tests.support.tiny_stage import processes

CLIPS, SHARDS = 36, 3

KILLED = """
import os, pickle, signal, sys
from data_pipelines.records import shard_writer
from data_pipelines.records.write import write_records

serialise, calls = shard_writer.serialise, []

def killed(*arguments, **options):
    calls.append(1)
    if len(calls) > int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return serialise(*arguments, **options)

shard_writer.serialise = killed
with open(sys.argv[1], "rb") as file:
    write_records(pickle.load(file), sys.argv[2], shards=3)
"""


@pytest.fixture(scope="module")
def many(clips):
    """Return tens of clips that share the audio of a few."""
    return [
        dataclasses.replace(clips[n % len(clips)], clip_id=f"clip {n}", tags=())
        for n in range(CLIPS)
    ]


@pytest.fixture(scope="module")
def truth(many, tmp_path_factory):
    """Return the files of the records that one process writes."""
    out = tmp_path_factory.mktemp("truth") / "out"
    write_records(iter(many), out, shards=SHARDS)
    return _files(out)


def _files(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["DirectRunner", "DaskRunner"])
def test_two_worker_processes_write_the_same_bytes(many, truth, tmp_path, name):
    out = tmp_path / "out"
    write_records(many, out, shards=SHARDS, runner=BeamRunner(name=name, workers=2))
    assert _files(out) == truth
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_shard_of_a_clip_follows_from_its_id_alone(many, tmp_path):
    def shards(clips, out):
        write_records(clips, out, shards=SHARDS)
        return {
            entry.clip_id: entry.shard
            for split in ("train", "val")
            for entry in RecordStore(out, split=split).entries
        }

    whole, fewer = shards(many, tmp_path / "all"), shards(many[::-2], tmp_path / "half")
    assert len(fewer) == CLIPS // 2 and fewer.items() <= whole.items()


def test_a_killed_writing_goes_on_to_the_same_bytes(many, truth, tmp_path, monkeypatch):
    out, given, done_before = tmp_path / "out", tmp_path / "clips", 20
    given.write_bytes(pickle.dumps(many))
    (killed,) = processes(["-c", KILLED, str(given), str(out), str(done_before)], devices=1)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    sealed = list((tmp_path / ".out.writing" / shard_writer.SEALED).glob("*.json"))
    assert 0 < len(sealed) < 2 * SHARDS
    # One of the finished shards is damaged meanwhile: it is written again too.
    shards = (tmp_path / ".out.writing" / shard_writer.SHARDS).glob("*-of-*")
    damaged = next(shard for shard in shards if shard.stat().st_size)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again, serialise = [], shard_writer.serialise

    def counted(example, **options):
        again.append(example["clip_id"])
        return serialise(example, **options)

    monkeypatch.setattr(shard_writer, "serialise", counted)
    write_records(many, out, shards=SHARDS)
    assert _files(out) == truth
    assert CLIPS - done_before < len(again) < CLIPS
    assert not (tmp_path / ".out.writing").exists()


def test_workers_of_a_runner_that_has_its_own_option_are_refused(many, tmp_path):
    with pytest.raises(UserError, match="FlinkRunner"):
        write_records(
            many, tmp_path / "out", runner=BeamRunner(name="FlinkRunner", workers=2), shards=1
        )
