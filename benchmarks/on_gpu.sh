#!/usr/bin/env bash
# The checks that need a GPU, in at most nine minutes, on a machine without network.
#
#   benchmarks/on_gpu.sh wheels DIR    where there is a network: what the machine lacks (45 MB)
#   benchmarks/on_gpu.sh run DIR OUT   there, from the root of the checkout; JSON in OUT
#   SIZE=tiny benchmarks/on_gpu.sh run DIR OUT    the same at a toy size, to try it on a CPU
#
# The machine has Python 3.12 as python3 (or $PYTHON) with jax, flax, optax, orbax-checkpoint,
# transformers, peft, torch and sentencepiece; the wheels go to a folder that is removed again.
# What runs, and what is in OUT: benchmarks/gpu_checks.py. $SECONDS_LEFT: of all, installation too.
set -euo pipefail

PYTHON=${PYTHON:-python3}
SECONDS_LEFT=${SECONDS_LEFT:-530}
PACKAGES=(av cffi jaxtyping ml_collections pycparser qwix soundfile soxr tensorboard wadler_lindig)

wheels() {
  "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --constraint constraints.txt \
    --dest "$1" "${PACKAGES[@]}"
  du -sh "$1"
}

run() {
  local site status=0
  site=$(mktemp -d)
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" "$1"/*.whl
  PYTHONPATH="$site:$PWD" "$PYTHON" -m benchmarks.gpu_checks --size "${SIZE:-7b}" --out "$2" \
    --seconds $((SECONDS_LEFT - SECONDS)) || status=$?
  rm -rf "$site"
  return $status
}

case "${1:-} $#" in
  "wheels 2") wheels "$2" ;;
  "run 3") run "$2" "$3" ;;
  *) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
