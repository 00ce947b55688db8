#!/usr/bin/env bash
# Make the tiny model that the experiments start from, from nothing but a seed, on one CPU core:
# pretraining (what images show, passages, episodes) gives a base model, then comes imitation of a scripted
# expert that searches, reads and sometimes makes mistakes.
# Every stage is a command of its own; what is done already is not done again. Run it from the repository's root.
#   bash examples/train/mini/coldstart.sh [OUT] [SEED]
set -euo pipefail
OUT=${1:-outputs/mini_coldstart}
SEED=${2:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
here=$(cd "$(dirname "$0")" && pwd)
mini=$OUT/mini

seg-research model --pretrain "${PRETRAIN:-1300}" --grounding "${GROUNDING:-450}" --clips "${CLIPS:-2750}" --seed "$SEED" --threads "$OMP_NUM_THREADS" --out "$OUT/base"

prepare() { # ROOT SPLIT
  [ -e "$1/$2_4_64_64.parquet" ] ||
    seg-research data okvos --root "$1" --split "$2" --num_frames 4 --max_size 64 --min_size 64 --patch_factor 16 --seed "$SEED"
}
seg-research data mini --out "$mini" --seed "$((SEED + 1))" --train "${TRAIN:-1440}" --val 8 --test 80
prepare "$mini" train

seg-research predict --data "$mini/train_4_64_64.parquet" --scripted noisy_expert --settings "$OUT/base" --rollouts "${ROLLOUTS:-1}" --seed "$SEED" \
  --text "$mini/local_KB/text_corpus.jsonl" --images "$mini/local_KB/image_corpus.jsonl" --out "$OUT/demonstrations/predictions.jsonl"

seg-research sft model=tiny hardware=cpu model.path="$OUT/base" data.train_files="$OUT/demonstrations/predictions.jsonl" \
  seg.seed="$SEED" seg.run_dir="$OUT/sft" optim.lr="${SFT_LR:-1.5e-4}" trainer.total_epochs="${EPOCHS:-1}" data.train_batch_size=16

[ -e "$OUT/policy" ] || python "$here/average.py" "$OUT/base" "$OUT/sft/policy" "$OUT/policy"

# Checked on a benchmark of its own: nothing above has seen it.
test=$OUT/examination
seg-research data mini --out "$test" --seed "$((SEED + 2))" --train 4 --val 4 --test "${TEST:-80}"
prepare "$test" test
python "$here/acceptance_checks.py" --model "$OUT/policy" --data "$test" --out "$OUT/checks"
