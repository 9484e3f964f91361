#!/usr/bin/env bash
# Stop the stage on every host: it saves a checkpoint and ends with status 75; launch.sh or resume.sh goes on.
#
# Usage: stop.sh [--wait SECONDS] [common options]
#   --wait SECONDS  how long it may take before it is killed (600); the newest checkpoint stays
# Where nothing is running nothing is done. The slice stays, and costs: delete.sh gives it back.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
seconds=600
set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
while [[ $# -gt 0 ]]; do
  case $1 in
    --wait)
      need_value "$@"
      [[ $2 =~ ^[0-9]+$ ]] || fail "--wait needs a number of seconds"
      seconds=$2
      shift
      ;;
    *) fail "unexpected argument '$1' (see --help)" ;;
  esac
  shift
done
on_workers_again all "bash $TPU_REPO/tpu_scripts/host_stage.sh stop $seconds"
