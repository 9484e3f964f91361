# Shared by the scripts of this folder: options, --help, --dry-run, and one way to run a command.
# shellcheck shell=bash
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$SCRIPTS")
: "${TPU_NAME:=ltu-as}" "${TPU_ZONE:=us-west4-a}" "${TPU_TYPE:=v5litepod-16}"
: "${TPU_RUNTIME:=v2-alpha-tpuv5-lite}" "${TPU_REPO:=ltu_jax}" "${TPU_BUCKET:=}"
: "${TPU_POLL_SECONDS:=60}" "${TPU_STATE:=$HOME/.local/state/ltu_jax}"
# What `launch/run.sh` on the hosts ends with, and what `watch.sh` and `resume.sh` make of it.
# shellcheck disable=SC2034 # read by the scripts
DONE=0 WRONG_INPUT=2 STOPPED=75 KILLED=143 LOST=255
DRY_RUN=0
ARGUMENTS=()

fail() {
  echo "error: $*" >&2
  exit "$WRONG_INPUT"
}

# macOS ships bash 3.2, to which an empty list is an unset variable.
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || fail "bash $BASH_VERSION is too old; install 4.4 or newer"

# show_help: the comment at the head of the script that was called, then the common options.
show_help() {
  sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"
  cat << HELP

Common options (or the environment variable):
  --name NAME        slice and queued resource (TPU_NAME), now $TPU_NAME
  --zone ZONE        (TPU_ZONE), now $TPU_ZONE
  --type TYPE        accelerator type (TPU_TYPE), now $TPU_TYPE
  --runtime VERSION  of the TPU VM (TPU_RUNTIME), now $TPU_RUNTIME
  --bucket BUCKET    Cloud Storage bucket, mounted as ~/bucket on every host (TPU_BUCKET)
  --dry-run          print the exact commands, run none
  --help             this text
The project is the one of: gcloud config set project PROJECT
HELP
}

# need_value OPTION VALUE...: an option in the place of the value is a forgotten value.
need_value() {
  [[ $# -gt 1 && -n $2 && $2 != -* ]] || fail "$1 needs a value (see --help)"
}

# parse ARGUMENT...: common options into variables, all others into ARGUMENTS.
parse() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      --help | -h)
        show_help
        exit 0
        ;;
      --dry-run) DRY_RUN=1 ;;
      --name | --zone | --type | --runtime | --bucket)
        need_value "$@"
        case $1 in
          --name) TPU_NAME=$2 ;;
          --zone) TPU_ZONE=$2 ;;
          --type) TPU_TYPE=$2 ;;
          --runtime) TPU_RUNTIME=$2 ;;
          --bucket) TPU_BUCKET=$2 ;;
        esac
        shift
        ;;
      *) ARGUMENTS+=("$1") ;;
    esac
    shift
  done
}

# no_more_arguments: for scripts that take options only.
no_more_arguments() {
  [[ ${#ARGUMENTS[@]} -eq 0 ]] || fail "unexpected argument '${ARGUMENTS[0]}' (see --help)"
}

# common_options: the options of this call, to hand on to another script.
common_options() {
  OPTIONS=(--name "$TPU_NAME" --zone "$TPU_ZONE" --type "$TPU_TYPE" --runtime "$TPU_RUNTIME")
  if [[ -n $TPU_BUCKET ]]; then OPTIONS+=(--bucket "$TPU_BUCKET"); fi
  if [[ $DRY_RUN == 1 ]]; then OPTIONS+=(--dry-run); fi
}

# run COMMAND...: print the exact command, and execute it unless --dry-run was given.
run() {
  echo "+ $(quoted "$@")"
  if [[ $DRY_RUN == 0 ]]; then "$@"; fi
}

# on_workers WHICH COMMAND: a shell command on one host of the slice, or on "all".
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$TPU_ZONE" --worker="$1" --command="$2"
}

# resource_state: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ... or GONE.
resource_state() {
  gcloud compute tpus queued-resources describe "$TPU_NAME" --zone="$TPU_ZONE" \
    --format='value(state.state)' 2> /dev/null || echo GONE
}

# wait_until_active: until the slice is there; fails when it never will be.
wait_until_active() {
  echo "+ # wait until $TPU_NAME is ACTIVE"
  if [[ $DRY_RUN == 1 ]]; then return; fi
  local state
  while true; do
    state=$(resource_state)
    echo "$TPU_NAME: $state"
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDED | SUSPENDING | GONE) fail "$TPU_NAME is $state: delete.sh, then create.sh" ;;
    esac
    sleep "$TPU_POLL_SECONDS"
  done
}

# stage_config STAGE: the value of --config of a stage such as "stage3" or "stage3:released".
stage_config() {
  local file=configs/${1%%:*}.py preset=
  [[ -f $ROOT/$file ]] || fail "there is no $file; a stage is tagging, stage1, stage2, stage3 or curriculum"
  if [[ $1 == *:* ]]; then preset=:${1#*:}; fi
  echo "$file$preset"
}

# quoted WORD...: the words as one shell command.
quoted() {
  local word text=
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then text+=" $word"; else text+=" ${word@Q}"; fi
  done
  echo "${text# }"
}
