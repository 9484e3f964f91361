#!/usr/bin/env bash
# Go on with the last launch from its newest checkpoint, on a new slice if the old one is gone.
#
# Usage: resume.sh [--spot | --reserved | --on-demand] [--detach] [common options]
#   --spot, --reserved, --on-demand  for a slice that must be created anew; as create.sh had it otherwise
#   --detach                         as in launch.sh
# Checkpoints must lie outside the slice (setup.sh --bucket) to outlive it. With --dry-run the
# slice is taken to be gone, which is the longer way.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
kind='' detach=()
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  case $argument in
    --spot | --reserved | --on-demand)
      [[ -z $kind ]] || fail "$kind and $argument exclude each other"
      kind=$argument
      ;;
    --detach) detach=("$argument") ;;
    *) fail "unexpected argument '$argument' (see --help)" ;;
  esac
done
saved=$TPU_STATE/$TPU_NAME.launch
[[ -f $saved ]] || fail "$saved is not there: nothing was launched on $TPU_NAME from this machine; use launch.sh"
: "${kind:=--${TPU_KIND:-on-demand}}"
launched=()
eval "launched=($(< "$saved"))"
# Where a checkpoint was seen, a run folder without one is a mount that failed, and no new run.
must_exist=--config.checkpoint.must_exist=True
if [[ " ${launched[*]} " != *" $must_exist "* ]] &&
  grep -q 'saved .*/checkpoints/[0-9]' "$TPU_STATE/$TPU_NAME.log" 2> /dev/null; then
  launched+=("$must_exist")
fi
common_options
if [[ $DRY_RUN == 1 ]]; then
  STATE=LOST
else
  slice_state
  while [[ $STATE == LEAVING ]]; do
    echo "$TPU_NAME: $DETAIL"
    sleep "$TPU_POLL_SECONDS"
    slice_state
  done
  echo "$TPU_NAME: $DETAIL"
fi
new=0
case $STATE in
  READY) ;;
  COMING) wait_until_active ;;
  *)
    if [[ $STATE == LOST ]]; then "$SCRIPTS/delete.sh" "${OPTIONS[@]}"; fi
    "$SCRIPTS/create.sh" --wait "$kind" "${OPTIONS[@]}"
    SET_UP=0 new=1
    ;;
esac
if [[ $SET_UP == 0 ]]; then "$SCRIPTS/setup.sh" "${OPTIONS[@]}"; fi
# A stage may have ended on one of its hosts only.
if [[ $new == 0 ]]; then "$SCRIPTS/stop.sh" "${OPTIONS[@]}"; fi
exec "$SCRIPTS/launch.sh" "${launched[@]}" ${detach[@]+"${detach[@]}"} "${OPTIONS[@]}"
