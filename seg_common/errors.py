"""Kinds of failure, told apart by type, because each is answered differently.

A malformed model turn is none of these: it is a value (`protocol.actions.FormatFault`), since a bad
turn is data.
"""


class SegResearchError(Exception):
    """Root of every error raised on purpose."""


class UsageError(SegResearchError, ValueError):
    """The user must change something; the message says what was seen, what was expected and where.
    Stops the run.
    """


class ToolError(SegResearchError):
    """The policy asked for something that cannot be done; the text is shown to it as an observation
    and the episode continues.
    """


class InfraError(SegResearchError, RuntimeError):
    """A service failed after its retries; the episode is marked, kept out of its group's baseline
    and counted.
    """


class InvariantError(SegResearchError, AssertionError):
    """Our own bug. Never caught below the host; carries ids and shapes."""
