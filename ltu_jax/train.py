"""Train a stage, or the whole curriculum.

    python -m ltu_jax.train --config=configs/curriculum.py:mini
    python -m ltu_jax.train --config=configs/stage3.py:released --config.init_from=runs/a/stage2
    python -m ltu_jax.train --config=configs/stage3.py:v5e-16

The last is the poster's recipe as it fits a TPU v5e-16; configs/slice_presets.py has all machines.
Any key of the config can be set on the command line (--config.optimizer.learning_rate=1e-4); run
the same command again to go on after an interruption. SIGINT and SIGTERM save a checkpoint first.
Exit status: 0 complete, 2 wrong input or a disk that fails, 70 stood still (see
RUN/stall-*.txt), 75 stopped by a signal ("resume me").

    python -m ltu_jax.train --replay runs/a/stage3/bad_batches/step-00000012.npz

computes loss and gradient norm of a skipped step's batch once more, on the newest checkpoint.

    python -m ltu_jax.train --help [--config=FILE]

lists all keys of a config with their values and what they mean.
"""

import contextlib
import errno
import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from configs import installed, stage3
from configs.help import listing
from ltu_jax import checkpoint
from ltu_jax.core import distributed, errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import read_jsonl
from ltu_jax.core.paths import as_path, failures, is_remote, reason
from ltu_jax.core.sharding import AXES
from ltu_jax.training.logs import plot_losses, read_rows
from ltu_jax.training.program import data_config
from ltu_jax.training.replay import replay_file
from ltu_jax.training.resilience.consistency import agree_at_launch
from ltu_jax.training.run_folder import claim_run
from ltu_jax.training.stage_config import STAGES, StageSettings, stage_settings
from ltu_jax.training.trainer import Outcome, train_stage

USAGE = "python -m ltu_jax.train --config=configs/stage3.py[:PRESET] [--config.key=value]"
CURRICULUM = "curriculum"
REPLAY, HELP = "--replay", ("--help", "-h", "--helpfull", "--helpshort")
SUMMARY, PROGRESS = "summary.json", "progress.json"
# EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on. tpu_scripts know it.
RESUME = 75
# The last three are of network disks and mounted buckets that went away.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ENOTCONN, errno.ESTALE,
         errno.EIO)  # fmt: skip
_ERROR_NAME = f"{UserError.__module__}.{UserError.__qualname__}"


def parse_config(argv: Sequence[str]) -> ConfigDict:
    """The config that the command line asks for, overrides applied.

    Raises:
        UserError: no --config, a file or preset that is not there, an unknown key, a value of the
            wrong type, an argument that is no flag.
    """
    values = flags.FlagValues()
    argv = [installed(argument) for argument in argv]
    arguments = ["train", *argv]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    path = next((a.split("=", 1)[1] for a in argv if a.startswith("--config=")), None)
    if path is not None and not Path(path.split(":")[0]).is_file():
        raise UserError(f"--config: there is no file {path.split(':')[0]}; usage: {USAGE}")
    try:
        rest = values(arguments)
    except (AttributeError, KeyError) as error:
        # ml_collections quotes its own message once more.
        reason = str(error).replace("\\n", " ").replace("\\", "").replace("'", "").strip('"')
        keys = "`python -m ltu_jax.train --help` lists all keys"
        if any(".mesh." in given for given in argv):
            keys = f"the axes of config.mesh are {', '.join(AXES)}; {keys}"
        raise UserError(f"unknown config key {reason}; {keys}") from error
    except (flags.Error, ValueError, TypeError, OSError) as error:
        # A config file's own error arrives as text with a traceback; its last line is the message.
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{_ERROR_NAME}: ")
        raise UserError(reason) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; usage: {USAGE}")
    config = values.config
    if config is None:
        raise UserError(f"--config is missing; usage: {USAGE}")
    return config


def resolve(config: ConfigDict) -> list[dict[str, Any]]:
    """The stages of a config as plain dicts, in the order they run.

    A curriculum leaves tagging out when TLTR weights are given.
    """
    plain = json.loads(json.dumps(config.to_dict()))
    if plain["stage"] != CURRICULUM:
        return [plain]
    given = bool(plain["weights"]["tltr"])
    first, *later = [plain[name] for name in STAGES if not (name == "tagging" and given)]
    for stage in later:  # it may not have begun yet
        stage["checkpoint"]["must_exist"] = False
    return [first, *later]


def read_stages(stages: Sequence[Mapping[str, Any]]) -> list[StageSettings]:
    """Read all stages, so that what is wrong with a later one is said before the first one trains.

    Raises:
        UserError: a value that cannot be.
    """
    settings = [stage_settings(stage) for stage in stages]
    for stage in settings:
        data_config(stage)
    return settings


def main(argv: Sequence[str], **given: Any) -> int:
    """Run the stages, replay a batch, or print help; returns 0, or RESUME after a signal.

    Args:
        argv: the command line.
        given: `devices` and `batches` of `trainer.train_stage`, where they are not the usual ones.

    Raises:
        UserError: wrong input, a disk that is full or read-only.
    """
    if argv and argv[0].partition("=")[0] == REPLAY:
        return _replay(argv)
    if set(HELP) & set(argv):
        words = [word for word in argv if word not in HELP]
        config = parse_config(words) if words else stage3.get_config()
        which = words[0] if words else "--config=configs/stage3.py"
        print(f"{__doc__.strip()}\n\nKeys, their values in {which}:\n\n{listing(config)}")
        return 0
    config = parse_config(argv)
    stages = resolve(config)
    settings = read_stages(stages)
    distributed.initialize()
    try:
        with _sigterm_as_sigint():
            return _train(config, settings, stages, given)
    except UserError as error:
        distributed.leave(error)
    except failures(config.run_dir) as error:
        if is_remote(config.run_dir):
            distributed.leave(
                UserError(f"{config.run_dir} failed: {reason(error)}; the same command goes on")
            )
        if error.errno not in _DISK:
            raise
        where = error.filename or config.run_dir  # a failed write has no name
        advice = "make room or choose another --config.run_dir"
        distributed.leave(UserError(f"{where} cannot be written: {error.strerror}; {advice}"))
    except KeyboardInterrupt:
        # Outside of training; there a signal first saves a checkpoint.
        _say("stopped by a signal before anything was to be saved; the same command goes on")
        if jax.process_count() > 1:
            os._exit(RESUME)  # an ordinary exit waits for the others
        return RESUME


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, also where a library makes another error of it."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Exception as error:
        if received:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _replay(argv: Sequence[str]) -> int:
    _, _, path = argv[0].partition("=")
    given = [path, *argv[1:]] if path else argv[1:]
    if len(given) != 1:
        raise UserError(f"usage: python -m ltu_jax.train {REPLAY} RUN/bad_batches/FILE.npz")
    distributed.initialize()
    try:
        _say(str(replay_file(as_path(given[0]))))
    except UserError as error:
        distributed.leave(error)
    return 0


def _train(
    config: ConfigDict,
    settings: Sequence[StageSettings],
    stages: Sequence[dict[str, Any]],
    given: Mapping[str, Any],
) -> int:
    agree_at_launch(stages)
    if config.stage == CURRICULUM and config.weights.tltr:
        _say(f"tagging is left out: config.weights.tltr {config.weights.tltr} is the trained TLTR")
    if distributed.is_main():
        for stage in settings:
            claim_run(stage)
    for stage, resolved in zip(settings, stages, strict=True):
        outcome = train_stage(stage, resolved=resolved, **given)
        if outcome is None:
            _say(f"{stage.stage}: already complete in {stage.run_dir}")
            if distributed.is_main():
                _summarise_afterwards(stage)
            continue
        _summarise(stage, outcome)
        if outcome.signal:
            _say(f"stopped by a signal; the same command goes on from {outcome.checkpoint}")
            return RESUME
    if distributed.is_main():
        _finish(as_path(config.run_dir), settings)
    return 0


def _say(text: str) -> None:
    if distributed.is_main():
        print(text, flush=True)


def _summarise(stage: StageSettings, outcome: Outcome) -> None:
    """Write RUN/summary.json when the stage is complete, RUN/progress.json when it was stopped."""
    if not distributed.is_main():
        return
    folder = as_path(stage.run_dir)
    so_far = folder / PROGRESS
    before = json.loads(so_far.read_text()) if so_far.is_file() else {}
    done = {
        "stage": stage.stage,
        "step": int(outcome.state.step),
        "first_loss": before.get("first_loss", outcome.first_loss),
        "last_loss": outcome.last_loss,
        "seconds": before.get("seconds", 0.0) + outcome.seconds,
        "steps_per_second": outcome.steps_per_second,
        "tokens_per_second": outcome.tokens_per_second,
        "mfu": outcome.mfu,
        "skipped_steps": outcome.skipped,
        "goodput": outcome.goodput,
        "seconds_of": outcome.parts,
        "checkpoint": str(outcome.checkpoint),
        **outcome.validation,
    }
    write_json(so_far if outcome.signal else folder / SUMMARY, done)


def _summarise_afterwards(stage: StageSettings) -> None:
    """Write RUN/summary.json of a complete stage that was stopped before it could, from its log."""
    folder = as_path(stage.run_dir)
    if (folder / SUMMARY).is_file():
        return
    so_far, saved = folder / PROGRESS, checkpoint.resolve(folder)
    done = json.loads(so_far.read_text()) if so_far.is_file() else {}
    rows = read_rows(folder / "log.jsonl")
    trained = [row for row in rows if "loss" in row and row["step"] <= int(saved.name)]
    if done.get("step") != int(saved.name) and trained:
        rates = ("steps_per_second", "tokens_per_second", "mfu")
        done = {
            "stage": stage.stage,
            "step": int(saved.name),
            "first_loss": trained[0]["loss"],
            "last_loss": float(np.mean([row["loss"] for row in trained][-20:])),
            "seconds": done.get("seconds", 0.0),  # what the log does not tell
            **{name: trained[-1].get(name, 0.0) for name in rates},
            "checkpoint": str(saved),
            **_last_validation(folder / "log.jsonl", step=int(saved.name)),
        }
    write_json(folder / SUMMARY, done)


def _last_validation(log: Path, *, step: int) -> dict[str, float]:
    # Not by `read_rows`, which keeps one row of a step: that of the sample answers.
    values: dict[str, float] = {}
    for _, row in read_jsonl(log):
        if row["step"] == step:
            values |= {key: row[key] for key in row if key.startswith("val_")}
    return values


def _finish(run_dir: Path, settings: Sequence[StageSettings]) -> None:
    """Print the table of all stages and draw their loss curves."""
    columns = ("stage", "step", "first_loss", "last_loss", "seconds", "tokens_per_second", "mfu")
    columns += ("goodput", "skipped")
    lines = ["{:<9}{:>6}{:>12}{:>11}{:>10}{:>19}{:>8}{:>9}{:>9}  validation".format(*columns)]
    curves = {}
    for stage in settings:
        folder = as_path(stage.run_dir)
        row = json.loads((folder / SUMMARY).read_text())
        held_out = ", ".join(f"{k[4:]} {v:.3f}" for k, v in row.items() if k.startswith("val_"))
        losses = f"{row['first_loss']:>12.3f}{row['last_loss']:>11.3f}"
        rates = f"{row['seconds']:>10.1f}{row['tokens_per_second']:>19.1f}{row['mfu']:>8.3f}"
        # A summary that was made from the log of a run that was killed lacks both.
        kept = f"{row.get('goodput', math.nan):>9.3f}{row.get('skipped_steps', '-'):>9}"
        lines.append(f"{row['stage']:<9}{row['step']:>6}{losses}{rates}{kept}  {held_out}")
        rows = [row for row in read_rows(folder / "log.jsonl") if "loss" in row]
        curves[stage.stage] = [(row["step"], row["loss"]) for row in rows]
    picture = run_dir / "loss.png"
    plot_losses(curves, picture)
    last = json.loads((as_path(settings[-1].run_dir) / SUMMARY).read_text())
    _say("\n".join([*lines, f"loss curves: {picture}", f"checkpoint: {last['checkpoint']}"]))


if __name__ == "__main__":
    # The loop's own handlers need the default ones below them; TensorFlow's chatter hides errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    errors.main(lambda: main(sys.argv[1:]))
