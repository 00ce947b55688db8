"""Logs of a server: one line a record, as text or JSON, from which secrets are struck out whoever
wrote them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum

REQUESTS = "retrieval_server.requests"
"""Logger of one record a request; its fields stand in `record.fields`."""
_STRUCK_OUT = "***"
_MIN_SECRET_CHARS = 6


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


class _Formatter(logging.Formatter):
    def __init__(self, style: LogFormat, secrets: Iterable[str]) -> None:
        super().__init__()
        self._form = style
        self._secrets = sorted(
            (s for s in secrets if len(s) >= _MIN_SECRET_CHARS), key=len, reverse=True
        )

    def format(self, record: logging.LogRecord) -> str:
        """Write one line; a traceback becomes part of it."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **record.__dict__.get("fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._form is LogFormat.JSON:
            line = json.dumps(fields, ensure_ascii=False, default=str)
        else:
            extra = [f"{key}={value}" for key, value in list(fields.items())[4:]]
            line = " ".join(
                [fields["time"], fields["level"], fields["logger"], fields["message"], *extra]
            ).replace("\n", "\\n")
        for secret in self._secrets:
            line = line.replace(secret, _STRUCK_OUT)
        return line


def log_to_stderr(style: LogFormat, secrets: Iterable[str]) -> None:
    """Send every record of this process to stderr in one format; the values of `secrets` are struck
    out.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(style, secrets))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
