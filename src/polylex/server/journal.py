"""Journal: what the server logs, one JSON object a line on standard error. Never a query, a document or a key."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

LOGGER = "polylex.server"
_OWN = "event"  # attribute of a record that holds members of its own


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, event, its members, and the trace of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        line["event"] = record.getMessage()
        line |= getattr(record, _OWN, {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def note(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **members: Any) -> None:  # noqa: ANN401
    """Log an event with some members."""
    logging.getLogger(LOGGER).log(level, event, extra={_OWN: members}, exc_info=error)


def begin(level: str) -> None:
    """Send all logs of this process to standard error; the program calls it, never the library."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Each request has a line of ours; the server's own would repeat it.
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)
