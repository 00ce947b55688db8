"""`python -m retrieval_server`: the search server alone, as `running_server` starts it. People use
`seg-research serve`.
"""

from __future__ import annotations

import os
import sys

from retrieval_server.options import add_arguments, settings_from
from retrieval_server.server import EXIT_USAGE, run, stop_when_stdin_closes
from seg_common.arguments import Parser
from seg_common.errors import UsageError


def main() -> int:
    """Serve; what the user must change is one line on stderr."""
    # as `seg-research` does, and before torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = Parser(prog="python -m retrieval_server", description=__doc__)
    add_arguments(parser)
    parser.add_argument(
        "--stop-with-stdin",
        action="store_true",
        help="shut down when standard input closes, as when the parent dies",
    )
    try:
        options = parser.parse_args()
        if options.stop_with_stdin:
            stop_when_stdin_closes()
        run(settings_from(options))
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
