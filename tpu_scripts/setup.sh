#!/usr/bin/env bash
# Copy this checkout (its last commit) to every host of the slice, install it, mount the bucket.
#
# Usage: setup.sh [--bucket BUCKET] [common options]
# With --bucket the folders weights, runs and data of the checkout are those of the bucket on every host,
# so that the paths of the recipes (weights/vicuna-7b-v1.1, runs/poster/stage2, data/open_asqa_records)
# lead there. May be run again: after a commit, or on a slice that was created anew.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
no_more_arguments
archive=$TPU_STATE/$TPU_NAME.tar.gz # not in /tmp, where another user could have put a link
if [[ $DRY_RUN == 0 ]]; then mkdir -p "$TPU_STATE"; fi
run git -C "$ROOT" archive --output="$archive" HEAD
run_again gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME":ltu_jax.tar.gz --zone="$TPU_ZONE" --worker=all
python='command -v python3.11 || (sudo apt-get update && sudo apt-get install -y python3.11 python3.11-venv)'
on_workers_again all "set -e; $python; mkdir -p $TPU_REPO; tar -xzf ltu_jax.tar.gz -C $TPU_REPO; cd $TPU_REPO; make env PYTHON=python3.11; .venv/bin/python -m pip install --constraint constraints.txt -e '.[tpu]'"
if [[ -n $TPU_BUCKET ]]; then
  source_list='deb https://packages.cloud.google.com/apt gcsfuse-jammy main'
  install="command -v gcsfuse || (echo $(quoted "$source_list") | sudo tee /etc/apt/sources.list.d/gcsfuse.list && curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /etc/apt/trusted.gpg.d/google.asc > /dev/null && sudo apt-get update && sudo apt-get install -y gcsfuse)"
  on_workers_again all "set -e; $install; bash $TPU_REPO/tpu_scripts/host_bucket.sh $(quoted "$TPU_BUCKET")"
fi
SET_UP=1
remember
