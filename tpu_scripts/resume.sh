#!/usr/bin/env bash
# Go on with the last launch from its newest checkpoint, on a new slice if the old one is gone.
#
# Usage: resume.sh [--spot | --reserved] [--detach] [common options]
#   --spot, --reserved  as in create.sh, for a slice that must be created anew
#   --detach            as in launch.sh
# Checkpoints must lie outside the slice (setup.sh --bucket) to outlive it. With --dry-run the
# slice is taken to be gone, which is the longer way.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
kind=() detach=()
for argument in "${ARGUMENTS[@]}"; do
  case $argument in
    --spot | --reserved) kind+=("$argument") ;;
    --detach) detach=("$argument") ;;
    *) fail "unexpected argument '$argument' (see --help)" ;;
  esac
done
saved=$TPU_STATE/$TPU_NAME.launch
[[ -f $saved ]] || fail "$saved is not there: nothing was launched on $TPU_NAME from this machine; use launch.sh"
eval "launched=($(< "$saved"))"
common_options
state=GONE
if [[ $DRY_RUN == 0 ]]; then state=$(resource_state); fi
if [[ $state != ACTIVE ]]; then
  if [[ $state != GONE || $DRY_RUN == 1 ]]; then "$SCRIPTS/delete.sh" "${OPTIONS[@]}"; fi
  "$SCRIPTS/create.sh" --wait "${kind[@]}" "${OPTIONS[@]}"
  "$SCRIPTS/setup.sh" "${OPTIONS[@]}"
fi
# shellcheck disable=SC2154 # launched is set by eval
exec "$SCRIPTS/launch.sh" "${launched[@]}" "${detach[@]}" "${OPTIONS[@]}"
