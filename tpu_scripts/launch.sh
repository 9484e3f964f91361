#!/usr/bin/env bash
# Train one stage on every host of the slice, and follow it.
#
# Usage: launch.sh STAGE [--config.key=value ...] [--detach] [common options]
#   STAGE     tagging, stage1, stage2, stage3 or curriculum, with a preset: stage3:v5e-16
#   --detach  start it and return; watch.sh follows later
# Training does not depend on this connection. Running it again after an interruption goes on from
# the newest checkpoint. Exit status, also of watch.sh and of host_stage.sh:
#   0    complete
#   2    wrong input, or a disk that is full; the message says what to change
#   75   stopped by a signal with its checkpoint saved (preemption, maintenance): resume.sh
#   137  killed without a word (out of memory?): look at the log
#   143  ended by SIGTERM before it had begun, or with its machine: resume.sh
#   255  connection lost, or the slice is gone: watch.sh tells, resume.sh goes on
#   any other: look at the log (3 stands for 1 and 255, which ssh has meanings for)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
detach=0 stage='' settings=()
for argument in ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}; do
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
# One name for this launch, however often a lost connection repeats its command.
id=$(date +%Y%m%dT%H%M%S)-$$-$RANDOM
if [[ $DRY_RUN == 1 ]]; then id=ID; fi
# resume.sh repeats this call.
if [[ $DRY_RUN == 0 ]]; then
  mkdir -p "$TPU_STATE"
  rm -f "$TPU_STATE/$TPU_NAME.log" # what watch.sh saw of the launch before
  quoted "$stage" ${settings[@]+"${settings[@]}"} > "$TPU_STATE/$TPU_NAME.launch"
fi
train=(env LTU_JAX_DISTRIBUTED=auto .venv/bin/python -m ltu_jax.train "--config=$config")
scripts=$TPU_REPO/tpu_scripts mount=''
# A host that was restarted has lost its mount.
if [[ -n $TPU_BUCKET ]]; then mount="bash $scripts/host_bucket.sh $(quoted "$TPU_BUCKET"); "; fi
on_workers_again all "set -e; ${mount}bash $scripts/host_stage.sh start $(quoted "$id" "${train[@]}" ${settings[@]+"${settings[@]}"})"
if [[ $detach == 0 ]]; then
  common_options
  exec "$SCRIPTS/watch.sh" "${OPTIONS[@]}"
fi
