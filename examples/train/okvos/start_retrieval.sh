#!/usr/bin/env bash
# Serve the knowledge base of the training questions at PORT, for SEARCH_URL=http://127.0.0.1:8100 of the scripts beside this one; --dry-run only shows the command.
set -euo pipefail
# shellcheck source=examples/train/okvos/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
need "$KNOWLEDGE/text_corpus.jsonl" "$KNOWLEDGE/image_corpus.jsonl"
step seg-research serve --text "$KNOWLEDGE/text_corpus.jsonl" --images "$KNOWLEDGE/image_corpus.jsonl" --port "${PORT:-8100}" "${KEPT[@]}"
