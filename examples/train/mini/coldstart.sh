#!/usr/bin/env bash
# Make the tiny model that the experiments start from, from nothing but a seed, on one CPU core:
# lessons (reading, seeing, episodes) give a base model, then imitation of a scripted expert that searches, reads and sometimes strays.
# The benchmark that it is examined on has another seed than the lessons and than anything that was looked at while they were made.
# Every stage is a command of its own; what is done already is not done again. Run it from the repository's root.
#   bash examples/train/mini/coldstart.sh [OUT] [SEED]
set -euo pipefail
OUT=${1:-outputs/mini_coldstart}
SEED=${2:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
here=$(cd "$(dirname "$0")" && pwd)
mini=$OUT/mini

seg-research model --lessons "${LESSONS:-1300}" --sight "${SIGHT:-450}" --clips "${CLIPS:-2750}" --seed "$SEED" --threads "$OMP_NUM_THREADS" --out "$OUT/base"

seg-research data mini --out "$mini" --seed "$((SEED + 1))" --train "${TRAIN:-960}" --val 8 --test "${TEST:-80}"
for split in train val test; do
  ls "$mini/$split"_4_64_64.parquet >/dev/null 2>&1 ||
    seg-research data okvos --root "$mini" --split "$split" --num_frames 4 --max_size 64 --min_size 64 --patch_factor 16 --seed "$SEED"
done

seg-research predict --data "$mini/train_4_64_64.parquet" --scripted demonstrator --settings "$OUT/base" --rollouts "${ROLLOUTS:-1}" --seed "$SEED" \
  --text "$mini/local_KB/text_corpus.jsonl" --images "$mini/local_KB/image_corpus.jsonl" --out "$OUT/demonstrations/predictions.jsonl"

seg-research sft model=tiny hardware=cpu model.path="$OUT/base" data.train_files="$OUT/demonstrations/predictions.jsonl" \
  seg.seed="$SEED" seg.run_dir="$OUT/sft" optim.lr="${SFT_LR:-1.5e-4}" trainer.total_epochs="${EPOCHS:-1}" data.train_batch_size=16

[ -e "$OUT/policy" ] || cp -r "$OUT/sft/policy" "$OUT/policy"
python "$here/gates.py" --model "$OUT/policy" --data "$mini" --out "$OUT/gates"
