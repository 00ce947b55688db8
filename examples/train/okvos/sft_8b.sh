#!/usr/bin/env bash
# Cold start of Qwen3-VL-8B on eight 80 GB GPUs: episodes of the scripted expert, or EPISODES=file; further arguments are overrides, --dry-run among them.
set -euo pipefail
# shellcheck source=examples/train/okvos/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
OUT=${OUT:-outputs/okvos_sft_8b}
options "$@"
if [[ -z ${EPISODES:-} ]]; then
    EPISODES=$OUT/episodes/predictions.jsonl
    need "$TRAIN" "$KNOWLEDGE/text_corpus.jsonl" "$KNOWLEDGE/image_corpus.jsonl"
    step mkdir -p "$OUT/episodes"
    serve --text "$KNOWLEDGE/text_corpus.jsonl" --images "$KNOWLEDGE/image_corpus.jsonl"
    step seg-research predict --data "$TRAIN" --scripted expert --search-url "$SEARCH_URL" --out "$EPISODES"
fi
given=("data.train_files=$EPISODES" "seg.run_dir=$OUT")
[[ -z ${MODEL:-} ]] || given+=("model.path=$MODEL")
step seg-research sft recipe=seg_research model=qwen3vl_8b hardware=8x80g "${given[@]}" "${KEPT[@]}"
