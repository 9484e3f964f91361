#!/usr/bin/env bash
# Give the slice back, with its queued resource; what lies only on its disks is lost.
#
# Usage: delete.sh [common options]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
no_more_arguments
run gcloud compute tpus queued-resources delete "$TPU_NAME" --zone="$TPU_ZONE" --force --quiet
