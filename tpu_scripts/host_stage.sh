#!/usr/bin/env bash
# On a host of the slice: start a stage in the background, follow it, or stop it.
#
# Usage: host_stage.sh start ID COMMAND...  once for an ID: a call that a lost connection repeats changes nothing
#        host_stage.sh follow               show its log to its end, and end with its status
#        host_stage.sh stop SECONDS         SIGTERM, after which it saves; SIGKILL if it takes longer
# launch.sh, watch.sh and stop.sh call it. It keeps in launch/: log, id, pid, the machine's boot, and status
# once the stage has ended. launch/lock is held as long as the stage or its wrapper lives.
# Exit status of follow: that of the stage, but 3 for 1 and 255, which gcloud and ssh end with themselves;
# 137 if it was killed without leaving one, 143 if the machine was restarted under it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p launch

boot() {
  cat "${LTU_JAX_BOOT_ID:-/proc/sys/kernel/random/boot_id}"
}

running() {
  ! flock --nonblock launch/lock true
}

start() {
  local id=$1
  shift
  trap '' HUP
  exec 8> launch/starting
  flock 8 # two calls at once, one after the other
  if [[ -f launch/id && $(< launch/id) == "$id" ]]; then
    echo "$id was started before"
    return
  fi
  exec 9> launch/lock
  if ! flock --nonblock 9; then
    echo "error: a stage is running here: stop.sh ends it" >&2
    exit 2
  fi
  rm -f launch/status
  boot > launch/boot
  echo "$id" > launch/id
  setsid python3 tpu_scripts/host_run.py "$@" > launch/log 2>&1 < /dev/null 8>&- &
  echo $! > launch/pid
}

follow() {
  local status
  flock launch/starting true
  if [[ ! -f launch/id ]]; then
    echo "error: nothing was launched here" >&2
    exit 2
  fi
  if running; then
    tail -n 40 -f -s "${TPU_TAIL_SECONDS:-1}" --pid="$(< launch/pid)" launch/log
    flock launch/lock true # a stage whose wrapper was killed is still saving
  else
    tail -n 40 launch/log
  fi
  if [[ -f launch/status ]]; then
    status=$(< launch/status)
    case $status in
      1 | 255) exit 3 ;;
      *) exit "$status" ;;
    esac
  fi
  if [[ $(boot) != $(< launch/boot) ]]; then exit 143; fi
  exit 137
}

stop() {
  local seconds=$1 pid
  flock launch/starting true
  if ! running; then
    echo "nothing is running here"
    return
  fi
  pid=$(< launch/pid)
  # Without its wrapper, the rest of the session that the wrapper led.
  kill -TERM "$pid" 2> /dev/null || kill -TERM -- "-$pid" 2> /dev/null || true
  if ! flock --timeout "$seconds" launch/lock true; then
    echo "not ended after $seconds s: killed"
    kill -KILL -- "-$pid" 2> /dev/null || true
    flock launch/lock true
  fi
  echo "stopped with status $(cat launch/status 2> /dev/null || echo 137)"
}

case ${1:-} in
  start | follow | stop) "$@" ;;
  *)
    echo "error: host_stage.sh start, follow or stop" >&2
    exit 2
    ;;
esac
