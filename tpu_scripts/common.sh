# Shared by the scripts of this folder: settings, --dry-run, and one way to run a command.
# shellcheck shell=bash
set -euo pipefail

: "${TPU_NAME:=ltu-as}" "${TPU_ZONE:=us-west4-a}" "${TPU_TYPE:=v5litepod-16}"
: "${TPU_RUNTIME:=v2-alpha-tpuv5-lite}" "${TPU_REPO:=ltu_jax}"
DRY_RUN=0
ARGUMENTS=()
for argument in "$@"; do
  if [[ $argument == --dry-run ]]; then DRY_RUN=1; else ARGUMENTS+=("$argument"); fi
done

# run COMMAND...: print the exact command, and execute it unless --dry-run was given.
run() {
  printf '+'; printf ' %q' "$@"; printf '\n'
  if [[ $DRY_RUN == 0 ]]; then "$@"; fi
}

# on_all_workers COMMAND: the same shell command on every host of the slice.
on_all_workers() {
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$TPU_ZONE" --worker=all --command="$1"
}
