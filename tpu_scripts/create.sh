#!/usr/bin/env bash
# Ask for a TPU slice: TPU_NAME, TPU_ZONE, TPU_TYPE and TPU_RUNTIME from the environment; --dry-run prints.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run gcloud compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" \
  --zone="$TPU_ZONE" --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_RUNTIME"
