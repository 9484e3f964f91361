"""Which settings make a step smaller."""

import math

from jax.sharding import Mesh

from ltu_jax.planning.question import Resident
from ltu_jax.training.stage_config import StageSettings


def advice(
    settings: StageSettings, held: Resident, *, mesh: Mesh, hbm_bytes: float
) -> tuple[str, ...]:
    """Settings that make a step smaller, the cheapest in time first."""
    found = []
    sharded = mesh.shape["fsdp"] * mesh.shape["tensor"]
    if settings.compute.remat != "full":
        found.append("--config.compute.remat=full (keeps one state per layer)")
    whisper = settings.model.whisper.n_audio_layer * 12 * settings.model.whisper.n_audio_state**2
    if settings.data.features == "on_the_fly" and settings.compute.encoder_dtype == "float32":
        found.append(
            f"--config.compute.encoder_dtype=bfloat16 (frees {2 * whisper / 1e9:.1f} GB of encoder)"
        )
    rows = settings.data.rows_per_batch // (mesh.shape["data"] * mesh.shape["fsdp"])
    micro = rows // settings.optimizer.accumulation
    if micro > 1:
        parts = settings.optimizer.accumulation * min(micro, 2)
        found.append(
            f"--config.optimizer.accumulation={parts} (micro-batches of {rows // parts} rows a "
            "device)"
        )
    if held.base > 0.6 * hbm_bytes or sharded == 1:
        wanted = min(
            mesh.size, max(2, 2 ** math.ceil(math.log2(max(1, held.base / (0.4 * hbm_bytes)))))
        )
        if mesh.size > sharded:
            fsdp = max(wanted * mesh.shape["fsdp"], 2 * mesh.shape["fsdp"])
            found.append(
                f"--config.mesh.data=-1 --config.mesh.fsdp={min(fsdp, mesh.size)} (the frozen base "
                f"of {held.base / 1e9:.1f} GB a device in parts)"
            )
    if settings.data.features == "on_the_fly":
        found.append("--config.data.features=stored (no encoder in the step)")
    found.append("a larger slice, or fewer rows: --config.data.rows_per_batch")
    return tuple(found)
