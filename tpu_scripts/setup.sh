#!/usr/bin/env bash
# Copy this checkout (its last commit) to every host of the slice, install it, mount the bucket.
#
# Usage: setup.sh [--bucket BUCKET] [common options]
# Runs and records must lie where all hosts see them. With --bucket that is ~/bucket, e.g.
#   launch.sh stage3:v5e-16 --config.run_dir=../bucket/stage3 --config.data.records=../bucket/records
# May be run again: after a commit, or on a slice that was created anew.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse "$@"
no_more_arguments
archive=$TPU_STATE/$TPU_NAME.tar.gz # not in /tmp, where another user could have put a link
if [[ $DRY_RUN == 0 ]]; then mkdir -p "$TPU_STATE"; fi
run git -C "$ROOT" archive --output="$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME":ltu_jax.tar.gz --zone="$TPU_ZONE" --worker=all
python='command -v python3.11 || (sudo apt-get update && sudo apt-get install -y python3.11 python3.11-venv)'
on_workers all "set -e; $python; mkdir -p $TPU_REPO; tar -xzf ltu_jax.tar.gz -C $TPU_REPO; cd $TPU_REPO; make env PYTHON=python3.11; .venv/bin/python -m pip install --constraint constraints.txt -e '.[tpu]'"
if [[ -n $TPU_BUCKET ]]; then
  source_list='deb https://packages.cloud.google.com/apt gcsfuse-jammy main'
  install="command -v gcsfuse || (echo $(quoted "$source_list") | sudo tee /etc/apt/sources.list.d/gcsfuse.list && curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /etc/apt/trusted.gpg.d/google.asc > /dev/null && sudo apt-get update && sudo apt-get install -y gcsfuse)"
  # A checkpoint is complete when its folder is renamed, so folders must be renameable.
  on_workers all "set -e; $install; mkdir -p bucket; mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=100000 $(quoted "$TPU_BUCKET") bucket"
fi
