"""Compile the encoder and a whole step for a TPU chip, in small, and write the compiler's text.

python tests/planning/compile_for_tpu.py FOLDER

The folder also gets the plan of a small step on a slice, and what `ltu_jax.plan` prints of it.
"""

import contextlib
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from ltu_jax import plan
from ltu_jax.core.sharding import make_mesh
from ltu_jax.models.whisper import Encoder, Whisper
from ltu_jax.planning import aot
from ltu_jax.planning.slices import find_slice
from ltu_jax.train import parse_config, resolve
from ltu_jax.training.program import make_program
from ltu_jax.training.stage_config import stage_settings

SMALL = """
--config=configs/stage3.py:mini --config.data.rows_per_batch=2 --config.data.lengths=()
--config.data.row_tokens=512 --config.data.pairs_per_clip=8 --config.compute.attention=blocks
--config.model.whisper.n_audio_state=128 --config.model.whisper.n_audio_head=2
--config.model.whisper.n_audio_layer=3 --config.model.tltr.d_model=128
--config.model.llama.num_hidden_layers=3 --config.model.llama.hidden_size=128
--config.model.llama.intermediate_size=256 --config.model.llama.num_attention_heads=4
--config.model.llama.num_key_value_heads=2 --config.model.llama.head_dim=32
--config.model.llama.vocab_size=256
"""
PLANNED = """
--config=configs/stage3.py:mini --config.data.layout=single
--config.data.lengths=() --config.data.rows_per_batch=32 --config.compute.dtype=bfloat16
--config.compute.remat=full --config.model.llama.num_hidden_layers=6
--config.model.llama.hidden_size=256 --config.model.llama.intermediate_size=1024
--config.model.llama.num_attention_heads=4 --config.model.llama.num_key_value_heads=4
--config.model.llama.vocab_size=2048 --text-length 96 --mean-text 60 --slice v5e-4
"""


def main(folder):
    with (folder / "plan.txt").open("w") as printed, contextlib.redirect_stdout(printed):
        status = plan.main([*PLANNED.split(), "--json", str(folder / "plan.json")])
    (folder / "status.txt").write_text(str(status))
    jax.config.update("jax_platforms", "cpu")
    settings = stage_settings(resolve(parse_config(SMALL.split()))[0])
    with aot.compiler():
        chip = aot.devices_of(find_slice("v5e-4"))[0]
        for dtype in ("float32", "bfloat16"):
            text = features(settings.model.whisper, dtype=dtype, chip=chip)
            (folder / f"features-{dtype}.txt").write_text(text)
        mesh = make_mesh(settings.mesh, [chip])
        step = make_program(settings, mesh=mesh, steps=100, text_length=512, labels=0)
        (folder / "gradient-float32.txt").write_text(step.lower().compile().as_text())


def features(config, *, dtype, chip):
    encoder = Whisper(config, dtype=dtype).encoder
    on_chip = functools.partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(chip))
    params = {path: on_chip(leaf.shape, leaf.dtype) for path, leaf in encoder.shapes.items()}
    log_mel = on_chip((2, 1000, config.n_mels), jnp.float32)
    return jax.jit(encoder.pure(Encoder.features)).lower(params, log_mel).compile().as_text()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
