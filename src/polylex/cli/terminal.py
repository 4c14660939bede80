"""What people see: consoles, numbers with units, one-line texts, progress. Rich is imported when first used."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from polylex.cli.verb import voice

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

_TRAILING = re.compile(r"[ ]+$", re.MULTILINE)
_BAR = 8  # cells of a full bar
_TICK = 60  # seconds between two lines of progress in a log
# A pipe has no width; wide enough for a sentence, narrow enough for a terminal it may end up in.
PIPE_WIDTH = 120


def stdout() -> Console:
    """Standard output for people. Colours only on a terminal, never with NO_COLOR."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Standard error for people."""
    return _console(sys.stderr)


def _console(file: Any) -> Console:  # noqa: ANN401 - whatever stands in for a text stream
    from rich.console import Console

    console = Console(file=file, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and not console._environ.get("COLUMNS"):
        console.width = PIPE_WIDTH
    return console


def show(console: Console, thing: RenderableType) -> None:
    """Print a table or text without the spaces that Rich fills lines up with: they wrap, and clutter pipes."""
    with console.capture() as captured:
        console.print(thing)
    console.file.write(_TRAILING.sub("", captured.get()))


def has_colours(console: Console) -> bool:
    """Whether colours can tell things apart."""
    return console.color_system is not None and not console.no_color


def is_unicode(console: Console) -> bool:
    """Whether the terminal can show more than ASCII."""
    return console.encoding.lower().startswith("utf")


def print_json(value: object) -> None:
    """One JSON object on one line of standard output, in readable characters where the output can hold them."""
    unicode = (getattr(sys.stdout, "encoding", None) or "ascii").lower().startswith("utf")
    sys.stdout.write(json.dumps(value, ensure_ascii=not unicode, allow_nan=False) + "\n")


def note(message: str) -> None:
    """A line for people on standard error; nothing with --quiet."""
    if not voice().quiet:
        print(f"polylex: {message}", file=sys.stderr)  # noqa: T201 - the command line is where printing belongs


# -- numbers -----------------------------------------------------------------------------------------


def show_bytes(size: float) -> str:
    """Bytes with a decimal unit: 14_200_000 is "14.2 MB"."""
    if size < 1000:
        return f"{size:.0f} bytes"
    power = min(4, (len(str(int(size))) - 1) // 3)
    return f"{size / 1000**power:.1f} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def show_seconds(seconds: float) -> str:
    """A duration: 0.0042 is "4.2 ms", 3.21 is "3.2 s", 192 is "3 min 12 s"."""
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def show_rate(rate: float) -> str:
    """Things a second, with as many digits as mean something."""
    return f"{rate:,.1f}" if rate < 10 else f"{rate:,.0f}"


def show_count(count: int, noun: str) -> str:
    """A number with its noun: "1 document", "1,200 documents"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# -- text --------------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    """The text with every run of white space as one space, and nothing that would steer the terminal."""
    return " ".join(flat(text).split())


def flat(text: str) -> str:
    """The text with every white space character and control character as a space: one for one, so that spans hold."""
    return "".join(" " if char.isspace() or (not char.isprintable() and ord(char) < 0xA0) else char for char in text)


def term_name(name: str, signs: Signs) -> str:
    """A term as people read it: without prefix and sign for a space; one of the text itself with the sign for echo."""
    bare = name[2:].replace("\u2581", " ").strip() or name
    return f"{signs.echo} {bare}" if name.startswith("m_") else bare


@dataclass(frozen=True)
class Signs:
    """Signs that tables use, for terminals with and without Unicode."""

    unicode: bool

    @property
    def times(self) -> str:
        """Between two factors."""
        return "×" if self.unicode else "x"

    @property
    def echo(self) -> str:
        """Before a term of the source view."""
        return "↺" if self.unicode else "="

    def bar(self, part: float) -> str:
        """A bar for a part of the whole in [0, 1]."""
        if not self.unicode:
            return "#" * max(1, round(part * _BAR))
        eighths = max(1, round(part * _BAR * 8))
        return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def signs_of(console: Console) -> Signs:
    """The signs that a terminal can show."""
    return Signs(is_unicode(console))


# -- progress ----------------------------------------------------------------------------------------


class Counter(Protocol):
    """Where progress is counted."""

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""

    def start_at(self, count: int) -> None:
        """So many were done before; they say nothing about the rate."""


class Silence:
    """Progress that nobody wants to see."""

    def advance(self, count: int = 1) -> None:
        """Do nothing."""

    def start_at(self, count: int) -> None:
        """Do nothing."""


class Ticker:
    """Progress for a log: a line on standard error every so often."""

    def __init__(self, doing: str, total: int | None, noun: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; `clock` gives seconds."""
        self._message = f"{doing.lower()}: {{done:,}}{f' of {total:,}' if total is not None else ''} {noun}, {{rate}}/s"
        self._clock = clock
        self._lock = threading.Lock()
        self.start_at(0)

    def start_at(self, count: int) -> None:
        """So many were done before."""
        self._done = self._before = count
        self._start = self._said = self._clock()

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        with self._lock:
            self._done += count
            now = self._clock()
            if now - self._said >= _TICK:
                self._said = now
                rate = show_rate((self._done - self._before) / (now - self._start))
                print(f"polylex: {self._message.format(done=self._done, rate=rate)}", file=sys.stderr)  # noqa: T201


class Bar:
    """Progress on a terminal."""

    def __init__(self, progress: Progress, task: Any) -> None:  # noqa: ANN401 - an opaque number of rich
        self._progress, self._task = progress, task

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self._progress.advance(self._task, count)

    def start_at(self, count: int) -> None:
        """So many were done before."""
        self._progress.reset(self._task, completed=count)


@contextmanager
def progress(doing: str, total: int | None, noun: str = "documents") -> Iterator[Counter]:
    """A bar on standard error with rate and time left, gone at the end; a line a minute where that is no terminal.

    total  how many there will be; None if unknown
    """
    if voice().quiet:
        yield Silence()
        return
    console = stderr()
    if not console.is_terminal:
        yield Ticker(doing, total, noun)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [SpinnerColumn(style="cyan"), TextColumn(doing), BarColumn(), _done_column(noun)]
    columns += (
        [TextColumn("·"), TimeElapsedColumn()]
        if total is None
        else [TextColumn("·"), TimeRemainingColumn(), TextColumn("left")]
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=8) as bars:
        yield Bar(bars, bars.add_task(doing, total=total))


def _done_column(noun: str) -> ProgressColumn:
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Done(ProgressColumn):
        """How many are done, of how many, at what rate."""

        def render(self, task: Task) -> Text:
            of = f" of {task.total:,.0f}" if task.total is not None else ""
            rate = f" · {show_rate(task.speed)}/s" if task.speed else ""
            return Text(f"{task.completed:,.0f}{of} {noun}{rate}")

    return Done()
