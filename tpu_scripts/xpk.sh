#!/usr/bin/env bash
# Train one stage as an XPK workload on a GKE cluster.
#
# Usage: xpk.sh STAGE --cluster CLUSTER --image IMAGE [--storage NAME] [--restarts N] [--build]
#               [--config.key=value ...] [common options]
#   STAGE       tagging, stage1, stage2, stage3 or curriculum, with a preset: stage3:v5e-16
#   --cluster   made by `xpk cluster create`, with nodes of --type
#   --image     container image with this repository; --build makes and pushes it (Dockerfile here)
#   --storage   attached with `xpk storage attach`; runs, records and weights must lie on it
#   --restarts  after a preemption or another fault of the machines (10); never after wrong input
# The workload is called NAME (--name). Pip names the tool xpk; jobset.yaml is the job without it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
stage='' cluster='' image='' restarts=10 build=0 storage=() settings=()
set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
while [[ $# -gt 0 ]]; do
  case $1 in
    --build) build=1 ;;
    --cluster | --image | --restarts | --storage)
      need_value "$@"
      case $1 in
        --cluster) cluster=$2 ;;
        --image) image=$2 ;;
        --restarts) restarts=$2 ;;
        --storage) storage=("--storage=$2") ;;
      esac
      shift
      ;;
    --config.*) settings+=("$1") ;;
    -*) fail "unexpected argument '$1' (see --help)" ;;
    *)
      [[ -z $stage ]] || fail "two stages: '$stage' and '$1'"
      stage=$1
      ;;
  esac
  shift
done
[[ -n $stage && -n $cluster && -n $image ]] || fail "STAGE, --cluster and --image are needed (see --help)"
config=$(stage_config "$stage")
if [[ $build == 1 ]]; then
  run docker build --file "$SCRIPTS/Dockerfile" --tag "$image" "$ROOT"
  run docker push "$image"
fi
train=(env LTU_JAX_DISTRIBUTED=auto python -m ltu_jax.train "--config=$config")
# `exec` gives XPK's shell to the trainer, which then gets the SIGTERM of a machine that goes and ends with 75.
# XPK restarts a workload that ends with 127 to 255 (killed, machine lost), here also with 75 (stopped
# after a checkpoint), and lets one that ends with 2 (wrong input) fail.
run xpk workload create --cluster="$cluster" --workload="$TPU_NAME" --zone="$TPU_ZONE" \
  --tpu-type="$TPU_TYPE" --docker-image="$image" --max-restarts="$restarts" \
  --restart-on-exit-codes="$STOPPED" \
  --termination-grace-period-seconds=120 ${storage[@]+"${storage[@]}"} \
  --command="exec $(quoted "${train[@]}" ${settings[@]+"${settings[@]}"})"
