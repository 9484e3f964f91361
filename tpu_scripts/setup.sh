#!/usr/bin/env bash
# Copy this checkout to every host of the slice and install it there; --dry-run prints.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
run git -C "$(dirname "${BASH_SOURCE[0]}")/.." archive --output="$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME":ltu_jax.tar.gz --zone="$TPU_ZONE" --worker=all
on_all_workers "mkdir -p $TPU_REPO && tar -xzf ltu_jax.tar.gz -C $TPU_REPO && cd $TPU_REPO && make env && .venv/bin/pip install --constraint constraints.txt -e '.[tpu]'"
