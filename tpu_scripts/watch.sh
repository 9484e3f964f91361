#!/usr/bin/env bash
# Follow the stage that launch.sh started, to its end; interrupting it does not stop training (stop.sh does).
#
# Usage: watch.sh [--worker N] [--resume] [common options]
#   --worker N  the host whose log is shown (0, which writes the progress)
#   --resume    run resume.sh when the stage was stopped or its slice taken away, and follow again
# A lost connection to a slice that is still there is taken up again.
# Exit status: that of the stage, see launch.sh --help.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
worker=0 resume=0
set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
while [[ $# -gt 0 ]]; do
  case $1 in
    --resume) resume=1 ;;
    --worker)
      [[ ${2:-} =~ ^[0-9]+$ ]] || fail "--worker needs the number of a host"
      worker=$2
      shift
      ;;
    *) fail "unexpected argument '$1' (see --help)" ;;
  esac
  shift
done
common_options
follow="bash $TPU_REPO/tpu_scripts/host_stage.sh follow"
if [[ $DRY_RUN == 1 ]]; then
  on_workers "$worker" "$follow"
  exit "$DONE"
fi

# follow_stage: to its end; leaves its status in `status`, or LOST when the slice is not READY any more.
follow_stage() {
  local lost=0 since
  while true; do
    slice_state
    if [[ $STATE != READY ]]; then
      status=$LOST
      return
    fi
    since=$SECONDS status=0
    # What is shown is kept: resume.sh looks there for a checkpoint.
    on_workers "$worker" "$follow" | tee -a "$TPU_STATE/$TPU_NAME.log" || status=${PIPESTATUS[0]}
    case $status in
      "$DONE" | "$WRONG_INPUT" | "$STOPPED" | "$KILLED") return ;;
      1 | "$LOST") # of gcloud and ssh; host_stage.sh ends with neither
        if ((SECONDS - since > 60)); then lost=0; fi
        lost=$((lost + 1))
        if ((lost > TPU_RETRIES)); then return; fi
        echo "connection lost ($lost of $TPU_RETRIES)" >&2
        sleep "$TPU_RETRY_SECONDS"
        ;;
      *) # a stage also breaks when another of its hosts is taken away
        slice_state
        if [[ $STATE != READY ]]; then status=$LOST; fi
        return
        ;;
    esac
  done
}

# resume_stage: by resume.sh; again when the new slice is taken away before the stage runs.
resume_stage() {
  local try=1 status
  while true; do
    status=0
    "$SCRIPTS/resume.sh" --detach "${OPTIONS[@]}" || status=$?
    if [[ $status == 0 ]]; then return; fi
    slice_state
    # 1 and 255: gcloud and ssh do not reach machines that are READY no longer, before that is known.
    if [[ $STATE == READY && $status != 1 && $status != "$LOST" ]]; then exit "$status"; fi
    if ((try >= TPU_RETRIES)); then exit "$status"; fi
    echo "$TPU_NAME: $DETAIL, try $try of $TPU_RETRIES" >&2
    sleep "$TPU_POLL_SECONDS"
    try=$((try + 1))
  done
}

while true; do
  follow_stage
  case $status in
    "$DONE") echo "$TPU_NAME: complete" ;;
    "$STOPPED" | "$KILLED" | "$LOST")
      echo "$TPU_NAME: stopped with status $status, slice $DETAIL; resume.sh goes on"
      if [[ $resume == 1 ]]; then
        resume_stage
        continue
      fi
      ;;
    *) echo "$TPU_NAME: ended with status $status; its log is $TPU_REPO/launch/log on each host" ;;
  esac
  exit "$status"
done
