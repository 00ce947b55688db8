#!/usr/bin/env bash
# Qwen3-VL-4B with GRPO on eight 80 GB GPUs, as published; further arguments are overrides, --dry-run among them.
set -euo pipefail
# shellcheck source=examples/train/okvos/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
OUT=${OUT:-outputs/okvos_4b}
train model=qwen3vl_4b hardware=8x80g algorithm=grpo "$@"
