#!/usr/bin/env bash
# Train one stage on every host of the slice, and follow it.
#
# Usage: launch.sh STAGE [--config.key=value ...] [--detach] [common options]
#   STAGE     tagging, stage1, stage2, stage3 or curriculum, perhaps with a preset: stage3:released
#   --detach  start it and return; watch.sh follows later
# Training does not depend on this connection. Running it again after an interruption goes on from
# the newest checkpoint. Exit status, also of watch.sh and of launch/run.sh on the hosts:
#   0    complete
#   2    wrong input, or a disk that is full; the message says what to change
#   75   stopped by a signal with its checkpoint saved (preemption, maintenance): resume.sh
#   143  ended by SIGTERM before it had begun: resume.sh
#   255  connection lost, the slice may be gone: watch.sh tells, resume.sh goes on
#   any other: look at the log
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
detach=0 stage='' settings=()
for argument in "${ARGUMENTS[@]}"; do
  case $argument in
    --detach) detach=1 ;;
    --config.*) settings+=("$argument") ;;
    -*) fail "unexpected argument '$argument' (see --help)" ;;
    *)
      [[ -z $stage ]] || fail "two stages: '$stage' and '$argument'"
      stage=$argument
      ;;
  esac
done
[[ -n $stage ]] || fail "which stage? usage: launch.sh STAGE [--config.key=value ...]"
config=$(stage_config "$stage")
# resume.sh repeats this call.
if [[ $DRY_RUN == 0 ]]; then
  mkdir -p "$TPU_STATE"
  quoted "$stage" "${settings[@]}" > "$TPU_STATE/$TPU_NAME.launch"
fi
train=$(quoted env LTU_JAX_DISTRIBUTED=auto .venv/bin/python -m ltu_jax.train "--config=$config" "${settings[@]}")
started="set -e; cd $TPU_REPO; mkdir -p launch; if test -e launch/pid && kill -0 \$(cat launch/pid) 2> /dev/null; then echo 'error: a stage is running here' >&2; exit 2; fi"
# The status is there before the process is gone, for whoever waits for its end.
written="rm -f launch/status; echo $(quoted "$train; echo \$? > launch/status") > launch/run.sh"
detached="nohup setsid bash launch/run.sh > launch/log 2>&1 < /dev/null & echo \$! > launch/pid"
on_workers all "$started; $written; $detached"
if [[ $detach == 0 ]]; then
  common_options
  exec "$SCRIPTS/watch.sh" "${OPTIONS[@]}"
fi
