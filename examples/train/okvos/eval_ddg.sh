#!/usr/bin/env bash
# Score a trained policy on the test split with searches on DuckDuckGo (no key); further arguments go to `predict`; --dry-run only shows the commands.
set -euo pipefail
# shellcheck source=examples/train/okvos/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
evaluate duckduckgo "$@"
