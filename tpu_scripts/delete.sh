#!/usr/bin/env bash
# Give the slice back, with its queued resource; --dry-run prints.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run gcloud compute tpus queued-resources delete "$TPU_NAME" --zone="$TPU_ZONE" --force
