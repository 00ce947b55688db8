"""Command lines: one line for what is refused, defaults shown once, numbers within their range."""

from dataclasses import dataclass

import pytest

from seg_common.arguments import Parser, add_job, at_least, chosen, number
from seg_common.errors import UsageError


@pytest.fixture
def parser():
    parser = Parser(prog="tool", description="Two lines\n  as they stand.")
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads")
    parser.add_argument("--port", type=at_least(0, 65535), help="to listen on")
    parser.add_argument("--rate", type=number(above_zero=True), help="calls a second")
    parser.add_argument("--price", type=number(), help="of a call (default: of the plan)")
    parser.add_argument("--loud", action="store_true", help="say more")
    return parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "0"], "--threads 0: expected at least 1; see: tool --help"),
        (["--threads", "two"], "--threads two: expected at least 1"),
        (["--threads", "9" * 5000], "expected at least 1"),
        (["--port", "65536"], "--port 65536: expected 0..65535"),
        (["--rate", "0"], "--rate 0: expected a number above 0"),
        (["--rate", "nan"], "--rate nan: expected a number above 0"),
        (["--price", "inf"], "--price inf: expected a number of at least 0"),
        (["--price=-1"], "--price -1: expected a number of at least 0"),
        (["--nothing"], "unrecognized arguments: --nothing; see: tool --help"),
    ],
)
def test_what_is_refused_is_a_usage_error_of_one_line(parser, arguments, said):
    with pytest.raises(UsageError) as raised:
        parser.parse_args(arguments)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_numbers_within_their_range_arrive(parser):
    options = parser.parse_args(["--threads", "3", "--rate", "0.5", "--price", "0"])
    assert (options.threads, options.rate, options.price) == (3, 0.5, 0.0)


def test_help_shows_a_default_that_there_is_and_no_other(parser):
    shown = parser.format_help()
    assert "CPU threads (default: 2)" in shown
    assert shown.count("default") == 2
    assert "Two lines\n  as they stand." in shown


def test_a_job_is_described_once():
    parser = Parser(prog="tool")
    job = add_job(parser.add_subparsers(), "build", "make an index")
    assert "Make an index." in job.format_help()
    assert "make an index" in parser.format_help()


def test_options_named_like_fields_become_them(parser):
    @dataclass
    class Settings:
        threads: int
        elsewhere: str = "kept"

    assert Settings(**chosen(Settings, parser.parse_args([]))) == Settings(threads=2)
