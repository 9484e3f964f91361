#!/usr/bin/env bash
# Ask for a TPU slice as a queued resource.
#
# Usage: create.sh [--spot | --reserved | --on-demand] [--wait] [common options]
#   --spot       cheaper, may be taken away at any time; resume.sh asks for the same again
#   --reserved   from the project's reservation
#   --on-demand  neither, which is the default
#   --wait       return only when the slice is there
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
RECALL=0
parse "$@"
kind=() wait=0
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
  case $argument in
    --spot | --reserved | --on-demand)
      [[ -z $TPU_KIND ]] || fail "--$TPU_KIND and $argument exclude each other"
      TPU_KIND=${argument#--}
      ;;
    --wait) wait=1 ;;
    *) fail "unexpected argument '$argument' (see --help)" ;;
  esac
done
: "${TPU_KIND:=on-demand}"
if [[ $TPU_KIND != on-demand ]]; then kind=("--$TPU_KIND"); fi
create=(compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" --zone="$TPU_ZONE"
  --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_RUNTIME" ${kind[@]+"${kind[@]}"})
echo "+ $(quoted gcloud "${create[@]}")"
if [[ $DRY_RUN == 0 ]]; then
  status=0
  ask_cloud "${create[@]}" || status=$?
  if [[ -n $ERRORS ]]; then echo "$ERRORS" >&2; fi
  # A request that was out of reach may have arrived all the same; the next one finds it there.
  if [[ $status != 0 ]]; then
    case $TRIES:$ERRORS in
      1:*) exit "$status" ;;
      *ALREADY_EXISTS* | *'already exists'*) echo "$TPU_NAME: asked for by an earlier try" ;;
      *) exit "$status" ;;
    esac
  fi
  remember
fi
if [[ $wait == 1 ]]; then wait_until_active; fi
