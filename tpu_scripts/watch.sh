#!/usr/bin/env bash
# Follow the stage that launch.sh started, to its end; interrupting it does not stop training.
#
# Usage: watch.sh [--worker N] [--resume] [common options]
#   --worker N  the host whose log is shown (0, which writes the progress)
#   --resume    run resume.sh when the stage was stopped or its slice taken away, and follow again
# Exit status: that of the stage, see launch.sh --help.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
worker=0 resume=0
set -- "${ARGUMENTS[@]}"
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
run gcloud compute tpus queued-resources describe "$TPU_NAME" --zone="$TPU_ZONE" \
  --format='value(state.state)' || exit "$LOST"
# Without a status the stage died with its host, or was killed.
follow="cd $TPU_REPO && tail -n 40 -f --pid=\$(cat launch/pid) launch/log; exit \$(cat launch/status || echo 1)"
status=0
on_workers "$worker" "$follow" || status=$?
if [[ $DRY_RUN == 1 ]]; then exit "$DONE"; fi
case $status in
  "$DONE") echo "$TPU_NAME: complete" ;;
  "$STOPPED" | "$KILLED" | "$LOST")
    echo "$TPU_NAME: stopped with status $status, resource $(resource_state); resume.sh goes on"
    if [[ $resume == 1 ]]; then
      common_options
      "$SCRIPTS/resume.sh" --detach "${OPTIONS[@]}"
      exec "$0" --worker "$worker" --resume "${OPTIONS[@]}"
    fi
    ;;
  *) echo "$TPU_NAME: ended with status $status; its log is $TPU_REPO/launch/log on each host" ;;
esac
exit "$status"
