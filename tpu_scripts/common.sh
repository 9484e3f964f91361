# Shared by the scripts of this folder: options, --help, --dry-run, what is remembered of a slice, how it
# is, and one way to run a command. Runs in bash 3.2, which macOS ships, and asks nothing of sed or date.
# shellcheck shell=bash
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$SCRIPTS")
: "${TPU_NAME:=ltu-as}" "${TPU_ZONE:=}" "${TPU_TYPE:=}" "${TPU_RUNTIME:=}" "${TPU_BUCKET:=}"
: "${TPU_REPO:=ltu_jax}" "${TPU_STATE:=$HOME/.local/state/ltu_jax}"
: "${TPU_POLL_SECONDS:=30}" "${TPU_RETRIES:=5}" "${TPU_RETRY_SECONDS:=15}"
# What a stage ends with (host_stage.sh), and what watch.sh and resume.sh make of it.
# shellcheck disable=SC2034 # read by the scripts
DONE=0 WRONG_INPUT=2 STOPPED=75 KILLED=143 LOST=255
DRY_RUN=0
RECALL=1    # create.sh asks for a new slice, whatever the last one of the name was
TPU_KIND='' # "spot", "reserved" or "on-demand"
SET_UP=0    # has setup.sh run on it?
ARGUMENTS=()

fail() {
  echo "error: $*" >&2
  exit "$WRONG_INPUT"
}

# show_help: the comment at the head of the script that was called, then the common options.
show_help() {
  local line
  {
    read -r line # the interpreter
    while IFS= read -r line && [[ $line == '#'* ]]; do
      line=${line#'#'}
      echo "${line# }"
    done
  } < "$0"
  cat << HELP

Common options (or the environment variable; else what create.sh and setup.sh used for NAME; else the default):
  --name NAME        slice and queued resource (TPU_NAME), now $TPU_NAME
  --zone ZONE        (TPU_ZONE), us-west4-a
  --type TYPE        accelerator type (TPU_TYPE), v5litepod-16
  --runtime VERSION  of the TPU VM (TPU_RUNTIME), by the type
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
  if [[ $RECALL == 1 ]]; then recall; fi
  : "${TPU_ZONE:=us-west4-a}" "${TPU_TYPE:=v5litepod-16}"
  if [[ -z $TPU_RUNTIME ]]; then choose_runtime; fi
}

# no_more_arguments: for scripts that take options only.
no_more_arguments() {
  [[ ${#ARGUMENTS[@]} -eq 0 ]] || fail "unexpected argument '${ARGUMENTS[0]}' (see --help)"
}

# choose_runtime: the runtime version of an accelerator type (cloud.google.com/tpu/docs/runtimes).
choose_runtime() {
  case $TPU_TYPE in
    v2-* | v3-* | v4-*) TPU_RUNTIME=tpu-ubuntu2204-base ;;
    v5litepod-*) TPU_RUNTIME=v2-alpha-tpuv5-lite ;;
    v5p-*) TPU_RUNTIME=v2-alpha-tpuv5 ;;
    v6e-*) TPU_RUNTIME=v2-alpha-tpuv6e ;;
    v5e-*) fail "--type $TPU_TYPE: gcloud calls it v5litepod-${TPU_TYPE#v5e-}" ;;
    *) fail "--type $TPU_TYPE: its runtime version is not known here; give --runtime" ;;
  esac
}

# remember: what this slice was asked for and set up with, for later calls.
remember() {
  if [[ $DRY_RUN == 1 ]]; then return; fi
  mkdir -p "$TPU_STATE"
  printf '%s\n' "zone=$TPU_ZONE" "type=$TPU_TYPE" "runtime=$TPU_RUNTIME" "kind=$TPU_KIND" \
    "bucket=$TPU_BUCKET" "set_up=$SET_UP" > "$TPU_STATE/$TPU_NAME.slice.new"
  mv "$TPU_STATE/$TPU_NAME.slice.new" "$TPU_STATE/$TPU_NAME.slice"
}

# recall: the same into the variables that neither an option nor the environment has set.
recall() {
  local key value type=''
  if [[ ! -f $TPU_STATE/$TPU_NAME.slice ]]; then return; fi
  while IFS='=' read -r key value; do
    case $key in
      zone) TPU_ZONE=${TPU_ZONE:-$value} ;;
      type) TPU_TYPE=${TPU_TYPE:-$value} type=$value ;;
      runtime) if [[ $TPU_TYPE == "$type" ]]; then TPU_RUNTIME=${TPU_RUNTIME:-$value}; fi ;;
      kind) TPU_KIND=${TPU_KIND:-$value} ;;
      bucket) TPU_BUCKET=${TPU_BUCKET:-$value} ;;
      set_up) SET_UP=$value ;;
    esac
  done < "$TPU_STATE/$TPU_NAME.slice"
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

# run_again COMMAND...: the same, again where it fails; for copies, which may be repeated.
run_again() {
  local try=1 status
  while true; do
    status=0
    run "$@" || status=$?
    if [[ $status == 0 ]] || ((try >= TPU_RETRIES)); then return "$status"; fi
    echo "status $status, try $try of $TPU_RETRIES; again in $TPU_RETRY_SECONDS s" >&2
    sleep "$TPU_RETRY_SECONDS"
    try=$((try + 1))
  done
}

# ask_cloud ARGUMENT...: gcloud with its answer in ANSWER and its errors in ERRORS; again where the
# cloud was out of reach. What it refuses is not asked again.
ask_cloud() {
  local try=1 status errors
  mkdir -p "$TPU_STATE"
  errors=$(mktemp "$TPU_STATE/gcloud.XXXXXX")
  while true; do
    status=0
    ANSWER=$(gcloud "$@" 2> "$errors") || status=$?
    ERRORS=$(< "$errors")
    if [[ $status == 0 ]] || ! out_of_reach || ((try >= TPU_RETRIES)); then break; fi
    echo "gcloud, try $try of $TPU_RETRIES: ${ERRORS##*$'\n'}" >&2
    sleep "$TPU_RETRY_SECONDS"
    try=$((try + 1))
  done
  # shellcheck disable=SC2034 # read by create.sh
  TRIES=$try
  rm -f "$errors"
  return "$status"
}

# out_of_reach: do ERRORS say that the cloud could not be asked, or was busy?
out_of_reach() {
  case $ERRORS in
    *UNAVAILABLE* | *DEADLINE_EXCEEDED* | *INTERNAL* | *ABORTED* | *'HTTPError 5'* | *'HTTPError 429'* | \
      *'imed out'* | *'onnection '* | *ConnectionError* | *'Unable to find the server'*) return 0 ;;
  esac
  return 1
}

# not_there: do ERRORS say that there is no such slice?
not_there() {
  case $ERRORS in *NOT_FOUND* | *'was not found'*) return 0 ;; esac
  return 1
}

# on_workers WHICH COMMAND: a shell command on one host of the slice, or on "all".
on_workers() {
  run gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$TPU_ZONE" --worker="$1" --command="$2"
}

# on_workers_again WHICH COMMAND: the same, again after a lost connection; for what may be repeated.
on_workers_again() {
  local try=1 status
  while true; do
    status=0
    on_workers "$@" || status=$?
    if [[ $status != "$LOST" ]] || ((try >= TPU_RETRIES)); then return "$status"; fi
    echo "connection lost, try $try of $TPU_RETRIES; again in $TPU_RETRY_SECONDS s" >&2
    sleep "$TPU_RETRY_SECONDS"
    try=$((try + 1))
  done
}

# slice_state: how the slice is, in STATE, and the cloud's own word for it, in DETAIL.
#   READY    it can be used
#   COMING   it will be there
#   LEAVING  it is being taken away
#   LOST     it was taken away, or never came; its request is still there
#   NONE     there is no request
# Fails where gcloud cannot tell.
slice_state() {
  if ! ask_cloud compute tpus queued-resources describe "$TPU_NAME" --zone="$TPU_ZONE" \
    --format='value(state.state)'; then
    not_there || cannot_tell
    STATE=NONE DETAIL='not there'
    return
  fi
  DETAIL=$ANSWER
  case $ANSWER in
    ACTIVE) node_state ;;
    CREATING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES) STATE=COMING ;;
    SUSPENDING | DELETING) STATE=LEAVING ;;
    SUSPENDED | FAILED) STATE=LOST ;;
    *) fail "gcloud says that $TPU_NAME is '$ANSWER', which these scripts do not know" ;;
  esac
}

# node_state: the same of the machines. A request is ACTIVE for a while after they were preempted.
node_state() {
  if ! ask_cloud compute tpus tpu-vm describe "$TPU_NAME" --zone="$TPU_ZONE" --format='value(state)'; then
    not_there || cannot_tell
    STATE=LOST DETAIL='ACTIVE without machines'
    return
  fi
  DETAIL=$ANSWER
  case $ANSWER in
    READY) STATE=READY ;;
    CREATING | STARTING | RESTARTING | REPAIRING | UNHIDING) STATE=COMING ;;
    STOPPING | DELETING | HIDING) STATE=LEAVING ;;
    PREEMPTED | TERMINATED | STOPPED | HIDDEN) STATE=LOST ;;
    *) fail "gcloud says that the machines of $TPU_NAME are '$ANSWER', which these scripts do not know" ;;
  esac
}

cannot_tell() {
  echo "error: gcloud cannot tell how $TPU_NAME in $TPU_ZONE is: $ERRORS" >&2
  exit 1
}

# wait_until_active: until the slice is there; fails when it never will be.
wait_until_active() {
  echo "+ # wait until $TPU_NAME is ACTIVE and READY"
  if [[ $DRY_RUN == 1 ]]; then return; fi
  while true; do
    slice_state
    echo "$TPU_NAME: $DETAIL"
    case $STATE in
      READY) return ;;
      COMING) sleep "$TPU_POLL_SECONDS" ;;
      *)
        ask_cloud compute tpus queued-resources describe "$TPU_NAME" --zone="$TPU_ZONE" \
          --format='value(state.failedData.error.message)' || ANSWER=''
        fail "$TPU_NAME is $DETAIL${ANSWER:+ ($ANSWER)}: delete.sh, then create.sh"
        ;;
    esac
  done
}

# stage_config STAGE: the value of --config of a stage such as "stage3:v5e-16".
stage_config() {
  local file=configs/${1%%:*}.py preset=
  [[ -f $ROOT/$file ]] || fail "there is no $file; a stage is tagging, stage1, stage2, stage3 or curriculum"
  if [[ $1 == *:* ]]; then
    preset=:${1#*:}
  else
    echo "note: $1 without a preset of a machine may not fit; configs/slice_presets.py has them, as $1:v5e-16" >&2
  fi
  echo "$file$preset"
}

# quoted WORD...: the words as one shell command.
quoted() {
  local word rest text='' plain='^[A-Za-z0-9_./:=,@%+-]+$'
  for word in "$@"; do
    if [[ $word =~ $plain ]]; then
      text+=" $word"
      continue
    fi
    rest=$word word=''
    while [[ $rest == *"'"* ]]; do
      word+="${rest%%"'"*}'\\''"
      rest=${rest#*"'"}
    done
    text+=" '$word$rest'"
  done
  echo "${text# }"
}
