"""Runs in a bucket: checkpoints that their seal completes, a log in parts, no false beginning."""

import dataclasses
import errno
import json
from typing import Any

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ltu_jax import checkpoint
from ltu_jax.checkpoint import writer
from ltu_jax.core import paths
from ltu_jax.core.errors import UserError
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl
from ltu_jax.core.parts import PartsWriter, read_parts
from ltu_jax.training.logs import RunLog, read_rows
from ltu_jax.training.saving import check_room
from tests.support.bucket import NAME

RUN = f"gs://{NAME}/runs/a"
METADATA = {"kind": "ltu-as-checkpoint", "stage": "stage3", "model": {}, "config": {"seed": 0}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The state of a run of two arrays."""

    step: Any
    trainable: dict[str, Any]
    opt_state: Any


def state_of(step: int) -> State:
    rng = np.random.default_rng(step)
    numbers = rng.normal(size=(2, 64, 32)).astype(np.float32)
    return State(
        step=np.int32(step),
        trainable={"audio_proj.kernel": numbers[0]},
        opt_state={"mu": numbers[1]},
    )


def save(step: int, *, keep: int = 2) -> Any:
    state = state_of(step)
    return checkpoint.save(RUN, state=state, adapter=state.trainable, metadata=METADATA, keep=keep)


def restored() -> State:
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state_of(0))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return checkpoint.restore(RUN, like=like, shardings=jax.tree.map(lambda _: place, like))[0]


def same(one: State, two: State) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_what_is_saved_in_a_bucket_comes_back_to_the_bit(bucket):
    for step in (4, 6):
        assert str(save(step, keep=1)) == f"{RUN}/checkpoints/{step}"
    assert checkpoint.steps_in(RUN) == [6]
    assert checkpoint.newest_good(RUN) == 6
    assert same(restored(), state_of(6))
    assert not any(".tmp-" in name for name in bucket.names())
    metadata, adapter = checkpoint.load_adapter(RUN)
    assert metadata["step"] == 6
    assert np.array_equal(adapter["audio_proj.kernel"], state_of(6).trainable["audio_proj.kernel"])
    checks = checkpoint.survey(RUN)
    assert [check.problem for check in checks] == [""] and checks[0].size > 16384


def test_the_seal_is_the_last_object_and_without_it_there_is_no_checkpoint(bucket, monkeypatch):
    save(2)
    copied, copy = [], writer.copy_object

    def stop_before_the_seal(source, target):
        if target.name == checkpoint.SEAL:
            raise OSError(errno.EIO, "the power is gone")
        copied.append(target.name)
        copy(source, target)

    monkeypatch.setattr(writer, "copy_object", stop_before_the_seal)
    with pytest.raises(checkpoint.CheckpointError, match="newest checkpoint is that of step 2"):
        save(4)
    assert "metadata.json" in copied
    assert any(name.startswith("runs/a/checkpoints/4/") for name in bucket.names())
    assert checkpoint.steps_in(RUN) == [2]
    assert checkpoint.newest_good(RUN) == 2
    assert not any(name.startswith("runs/a/checkpoints/4/") for name in bucket.names())


def test_a_changed_object_is_found_and_the_step_before_goes_on(bucket, capsys):
    save(2)
    save(4)
    victim = next(n for n in bucket.names() if n.startswith("runs/a/checkpoints/4/adapter/d/"))
    content = bytearray(bucket.content(victim))
    content[len(content) // 2] ^= 1
    paths.as_path(f"gs://{NAME}/{victim}").write_bytes(bytes(content))
    assert checkpoint.newest_good(RUN) == 2
    assert "2 steps are lost" in capsys.readouterr().err
    assert checkpoint.steps_in(RUN) == [2]
    assert any("/checkpoints/4.damaged-1/" in name for name in bucket.names())


def test_a_bucket_that_is_gone_is_an_error_and_not_a_new_run(bucket):
    assert checkpoint.steps_in(f"gs://{NAME}/new") == []
    save(2)
    bucket.vanish()
    for call in (checkpoint.steps_in, checkpoint.newest_good, checkpoint.resolve):
        with pytest.raises(UserError, match=NAME):
            call(RUN)
    with pytest.raises(UserError, match="run_dir"):
        check_room(paths.as_path(RUN), size=1, keep=1, saves=1)
    with pytest.raises(UserError, match=NAME):
        save(4)


def test_a_log_in_a_bucket_outlives_its_process_and_is_read_as_one(bucket):
    log = RunLog(paths.as_path(RUN), tensorboard=True)
    log.row(1, {"loss": 3.0})
    log.flush()
    log.row(2, {"loss": 2.0})  # lost with the machine
    second = RunLog(paths.as_path(RUN), tensorboard=True)
    second.row(2, {"loss": 2.5})
    second.close()
    names = [name for name in bucket.names() if "/log" in name]
    assert names == ["runs/a/log-00001.jsonl", "runs/a/log-00002.jsonl"]
    assert [row["loss"] for row in read_rows(paths.as_path(RUN) / "log.jsonl")] == [3.0, 2.5]
    where = [where for where, _ in read_jsonl(f"{RUN}/log.jsonl")]
    assert where == [f"{RUN}/log-00001.jsonl:1", f"{RUN}/log-00002.jsonl:1"]
    assert list(read_jsonl(f"{RUN}/none.jsonl")) == []


def test_tensorboard_reads_the_event_files_of_a_bucket(bucket, tmp_path):
    log = RunLog(paths.as_path(RUN), tensorboard=True)
    for step in range(3):
        log.row(step, {"loss": float(step)})
    log.close()
    for name in bucket.names():
        if "tfevents" in name:
            (tmp_path / name.rpartition("/")[2]).write_bytes(bucket.content(name))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [0.0, 1.0, 2.0]


def test_parts_fill_up_and_none_is_written_over(bucket):
    place = f"gs://{NAME}/stream.bin"
    first, second = (PartsWriter(place, head=b"<", every=60.0, full=4) for _ in range(2))
    for writer_, data in ((first, b"aaaa"), (second, b"b"), (first, b"c"), (second, b"d")):
        writer_.write(data)
        writer_.flush()
    assert [content for _, content in read_parts(place)] == [b"<aaaa", b"<bd", b"<c"]
    paths.as_path(f"gs://{NAME}/stream-00003.bin").write_bytes(b"another's")
    first.write(b"e")
    with pytest.raises(OSError):
        first.flush()
    assert read_parts(place)[-1][1] == b"another's"


def test_parts_come_by_themselves(bucket):
    with JsonlWriter(f"gs://{NAME}/log.jsonl") as file:
        file._parts.close()
        file._parts = PartsWriter(f"gs://{NAME}/log.jsonl", every=0.01)
        file.append({"step": 1})
        for _ in range(1000):
            if bucket.names():
                break
            file._parts._closed.wait(0.01)
        assert json.loads(bucket.content("log-00001.jsonl")) == {"step": 1}
