"""Checkpoints of training runs: their format, hashes of their files, saving and restoring."""

from ltu_jax.checkpoint.format import (
    FOLDER,
    KINDS,
    UNFINISHED,
    check_sizes,
    identity,
    read_metadata,
    resolve,
    steps_in,
)
from ltu_jax.checkpoint.integrity import METADATA, SEAL, CheckpointError, Damaged
from ltu_jax.checkpoint.reader import load_adapter, restore
from ltu_jax.checkpoint.recovery import StepCheck, newest_good, survey
from ltu_jax.checkpoint.writer import Turn, not_written, save, save_adapter

__all__ = [
    "FOLDER",
    "KINDS",
    "METADATA",
    "SEAL",
    "UNFINISHED",
    "CheckpointError",
    "Damaged",
    "StepCheck",
    "Turn",
    "check_sizes",
    "identity",
    "load_adapter",
    "newest_good",
    "not_written",
    "read_metadata",
    "resolve",
    "restore",
    "save",
    "save_adapter",
    "steps_in",
    "survey",
]
