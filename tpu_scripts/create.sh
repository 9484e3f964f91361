#!/usr/bin/env bash
# Ask for a TPU slice as a queued resource.
#
# Usage: create.sh [--spot | --reserved] [--wait] [common options]
#   --spot      cheaper, may be taken away at any time (see resume.sh)
#   --reserved  from the project's reservation
#   --wait      return only when the slice is there
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
kind=() wait=0
for argument in "${ARGUMENTS[@]}"; do
  case $argument in
    --spot | --reserved) kind+=("$argument") ;;
    --wait) wait=1 ;;
    *) fail "unexpected argument '$argument' (see --help)" ;;
  esac
done
[[ ${#kind[@]} -lt 2 ]] || fail "--spot and --reserved exclude each other"
run gcloud compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" \
  --zone="$TPU_ZONE" --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_RUNTIME" "${kind[@]}"
if [[ $wait == 1 ]]; then wait_until_active; fi
