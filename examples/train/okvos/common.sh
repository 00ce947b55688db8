# shellcheck shell=bash
# Sourced by the scripts beside it: where things are. Run them from the repository; override with
#   DATA   prepared benchmark (data/okvos/README.md)     SIZE   side of its frames in pixels
#   MODEL  a checkpoint folder                           OUT    run folder
#   SEARCH_URL  a search server that runs already; without one, one is started and stopped
DATA=${DATA:-data/OK_VOS}
SIZE=${SIZE:-448}
KNOWLEDGE=$DATA/local_KB
# shellcheck disable=SC2034
TRAIN=$DATA/train_6_${SIZE}_${SIZE}.parquet
TEST=$DATA/test_6_${SIZE}_${SIZE}.parquet

need() { # end with one line if a file is missing
    local path
    for path in "$@"; do
        [[ -e $path ]] || { echo "$(basename "$0"): $path is missing; see data/okvos/README.md, or set DATA, SIZE, MODEL or OUT" >&2; exit 2; }
    done
}

train() { # a training run; the launcher starts the search server on the knowledge base, and stops it
    need "$TRAIN" "$TEST"
    local given=("data.train_files=$TRAIN" "seg.run_dir=$OUT")
    # OK-VOS has no validation split and verl wants one named; with trainer.test_freq=-1 it is never looked at.
    given+=("data.val_files=$TEST")
    [[ -z ${MODEL:-} ]] || given+=("actor_rollout_ref.model.path=$MODEL")
    if [[ -n ${SEARCH_URL:-} ]]; then
        given+=(search=server "seg.search.url=$SEARCH_URL")
    else
        need "$KNOWLEDGE/text_corpus.jsonl" "$KNOWLEDGE/image_corpus.jsonl"
        given+=(search=local "seg.search.text=$KNOWLEDGE/text_corpus.jsonl" "seg.search.images=$KNOWLEDGE/image_corpus.jsonl")
    fi
    options "$@"
    exec seg-research train ${DRY_RUN:+--dry-run} recipe=seg_research rollout=vllm "${given[@]}" "${KEPT[@]}"
}

options() { # take --dry-run out of the arguments; the others are in KEPT
    KEPT=()
    local word
    for word in "$@"; do if [[ $word == --dry-run ]]; then DRY_RUN=1; else KEPT+=("$word"); fi; done
}

step() { # run a command, or with DRY_RUN only show it
    if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}

serve() { # start a search server with these options, stop it when the script ends; sets SEARCH_URL
    if [[ -n ${SEARCH_URL:-} ]]; then return; fi
    SEARCH_URL=http://127.0.0.1:0
    if [[ -n ${DRY_RUN:-} ]]; then step seg-research serve --port 0 "$@"; return; fi
    said=$(mktemp)
    seg-research serve --port 0 "$@" >"$said" &
    server=$!
    trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; rm -f "$said"' EXIT
    until SEARCH_URL=$(grep -o 'http://[^ ]*' "$said"); do
        kill -0 "$server" 2>/dev/null || exit 1
        sleep 0.2
    done
}

evaluate() { # predict, segment, score, report; $1 is the search provider, the rest goes to `seg-research predict`
    local provider=$1
    shift
    MODEL=${MODEL:-outputs/okvos_4b/policy}
    OUT=${OUT:-outputs/okvos_eval_$provider}
    need "$TEST" "$MODEL" "$DATA/test_meta_mapping.json"
    options "$@"
    step mkdir -p "$OUT"
    serve --provider "$provider" --cache-file "$OUT/searches.sqlite"
    step seg-research predict --data "$TEST" --model "$MODEL" --search-url "$SEARCH_URL" --out "$OUT/predictions.jsonl" "${KEPT[@]}"
    step seg-research segment "$OUT/predictions.jsonl" --backend "${BACKEND:-sam2}"
    step seg-research evaluate "$OUT/predictions.jsonl" --truth "$DATA/test_meta_mapping.json"
    step seg-research report --run "$OUT"
}
