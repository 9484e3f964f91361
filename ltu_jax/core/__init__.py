"""Parts that everything else stands on: errors, configs, files, processes, meshes."""

import os

# epath asks once which client it reads buckets with. TensorFlow's knows no emulator, so that no
# test would run what users run.
os.environ.setdefault("EPATH_USE_TF", "false")
