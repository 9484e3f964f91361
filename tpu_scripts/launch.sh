#!/usr/bin/env bash
# launch.sh STAGE [--config.key=value ...]: train one stage (stage1, stage2, stage3 or curriculum) on every host.
# Run again after an interruption: training goes on from its newest checkpoint. --dry-run prints.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
stage=${ARGUMENTS[0]:?usage: launch.sh STAGE [--config.key=value ...] [--dry-run]}
config=configs/${stage%%:*}.py
[[ -f "$(dirname "${BASH_SOURCE[0]}")/../$config" ]] || { echo "error: no $config" >&2; exit 2; }
flags=; [[ ${#ARGUMENTS[@]} -gt 1 ]] && flags=$(printf " %q" "${ARGUMENTS[@]:1}")
preset=; [[ $stage == *:* ]] && preset=:${stage#*:}
on_all_workers "cd $TPU_REPO && .venv/bin/python -m ltu_jax.train --config=$config$preset$flags"
