#!/usr/bin/env bash
# Give the slice back, with its queued resource; what lies only on its disks is lost.
#
# Usage: delete.sh [common options]
# Nothing to give back is no error; what is being taken away is waited for.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
no_more_arguments
delete=(compute tpus queued-resources delete "$TPU_NAME" --zone="$TPU_ZONE" --force --quiet)
echo "+ $(quoted gcloud "${delete[@]}")"
if [[ $DRY_RUN == 1 ]]; then exit "$DONE"; fi
while true; do
  status=0
  ask_cloud "${delete[@]}" || status=$?
  if [[ $status == 0 ]]; then exit "$DONE"; fi
  refusal=$ERRORS
  slice_state
  case $STATE in
    NONE)
      echo "$TPU_NAME is not there"
      exit "$DONE"
      ;;
    LEAVING) # it is being taken away, and refuses until that is done
      echo "$TPU_NAME: $DETAIL"
      sleep "$TPU_POLL_SECONDS"
      ;;
    *)
      echo "$refusal" >&2
      exit "$status"
      ;;
  esac
done
