"""`seg-research`: one command, a verb for each job. Only the chosen verb's module is imported, so
`--help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from seg_common.arguments import Parser
from seg_common.errors import InfraError, UsageError
from seg_research import __version__

COMMANDS: dict[str, str] = {
    "data": "make or prepare a benchmark (mini, okvos)",
    "serve": "run the search tool server",
    "index": "build, evaluate or plan indexes of local corpora",
    "cache": "show, export or import recorded web searches",
    "model": "get the tiny Qwen3-VL of the mini benchmark, or train a new one",
    "sft": "supervised training on recorded episodes (cold start)",
    "train": "train a policy with GRPO or DAPO on verl",
    "predict": "run a policy over a benchmark, write predictions.jsonl",
    "segment": "turn predictions into masks for every frame",
    "evaluate": "compute J, F and J&F of masks, overall and per ability",
    "score": "compute the rewards of recorded rollouts again and compare",
    "report": "write one HTML page with curves and trajectories",
    "demo": "all of the above on the mini benchmark, in a few minutes",
    "doctor": "check this installation and say what to do about each problem",
}

MODULES = {"model": "seg_research.mini.command_model"}
"""Where a command's module is, unless it has the command's name and is beside this one."""

EPILOG = """examples:
  seg-research demo                               the whole job on a laptop
  seg-research data mini --out outputs/mini       a benchmark drawn from a seed
  seg-research train recipe=seg_research hardware=cpu --dry-run
  seg-research segment predictions.jsonl --backend grabcut
  seg-research COMMAND --help                     options and examples of one command
"""

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}

_OUR_PACKAGES = {"seg_common", "seg_research", "retrieval_server", "post_segmentation"}

EXIT_USAGE, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a failure is one line that says what to do, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin at barriers cost a loaded machine far more than they save an idle one;
    # OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=os.environ.get("SEG_LOG_LEVEL", "WARNING").upper(),
        format="%(levelname)s %(name)s: %(message)s",
    )
    try:
        return run_command(arguments)
    except UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except InfraError as error:
        return _fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail(
            "stopped; what was written is kept, run the same command again to go on",
            EXIT_INTERRUPTED,
        )
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            return _report_bug(error)
        return _fail(
            f"{error.filename or 'disk'}: {error.strerror}; free some space or choose another"
            " folder, then run again",
            EXIT_USAGE,
        )
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OUR_PACKAGES:
            return _report_bug(error)
        return _fail(
            f"the package {package} is not installed, and this command needs it; install it with: "
            "pip install 'seg-research[train,retrieval]' (in a checkout: make install)",
            EXIT_USAGE,
        )
    except Exception as error:
        # Boundary: whatever is left is a bug of ours; the user gets one line and a file to send us.
        return _report_bug(error)


def run_command(arguments: list[str]) -> int:
    """Parse and run one command; errors are raised, not printed."""
    if arguments and arguments[0] in COMMANDS:
        name = arguments[0]
        module = importlib.import_module(module_of(name))
        verb = Parser(
            prog=f"seg-research {name}", description=module.__doc__, epilog=module.EXAMPLES
        )
        module.add_arguments(verb)
        parse = verb.parse_intermixed_args if verb.intermixed else verb.parse_args
        return module.run(parse(arguments[1:]))
    parser = Parser(
        prog="seg-research",
        description="Train, run and judge policies that segment video and can look things up.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"seg-research {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        verbs.add_parser(name, help=summary)
    parser.parse_args(arguments)  # --help, --version, or a command that there is not
    parser.print_help()
    return 0


def module_of(command: str) -> str:
    """Return the name of the module that a command is defined in."""
    return MODULES.get(command, f"seg_research.cli.{command}")


def _report_bug(error: Exception) -> int:
    handle, name = tempfile.mkstemp(prefix="seg-research-", suffix=".txt")
    os.close(handle)
    Path(name).write_text("".join(traceback.format_exception(error)))
    return _fail(
        f"internal error: {type(error).__name__}: {error}\n  details for a bug report: {name}",
        EXIT_FAILED,
    )


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"seg-research: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
