#!/usr/bin/env bash
# On a host of the slice: mount a bucket as ~/bucket, and let weights, runs and data of the checkout lie there.
#
# Usage: host_bucket.sh BUCKET
# setup.sh and launch.sh call it; where all is as it should be it changes nothing.
set -euo pipefail
mounted=$HOME/bucket
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if ! mountpoint -q "$mounted"; then
  fusermount -uz "$mounted" 2> /dev/null || true # a mount whose gcsfuse has died
  mkdir -p "$mounted"
  # A checkpoint is complete when its folder is renamed, so folders must be renameable.
  gcsfuse --implicit-dirs --rename-dir-limit=100000 "$1" "$mounted"
fi
for folder in weights runs data; do
  if [[ -e $repository/$folder && ! -L $repository/$folder ]]; then
    echo "error: $repository/$folder is a folder of this host alone; move it to $mounted/$folder" >&2
    exit 2
  fi
  mkdir -p "$mounted/$folder"
  ln -sfn "$mounted/$folder" "$repository/$folder"
done
