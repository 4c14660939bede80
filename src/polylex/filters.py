"""Filters: a small language that says which documents a search may return (docs/filters.md).

    wanted = parse("lang = 'de' and (year >= 2020 or tags has 'law')")
    holds(wanted, "id-7", {"lang": "de", "year": 2021})          # True
    str(wanted)                                                  # parse(str(wanted)) == wanted

A test is true or false, never unknown. What cannot be compared is not equal, and a field that is missing is one that
is null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadFilter

MAX_CHARS = 100_000  # of an expression: room for some ten thousand ids
MAX_DEPTH = 50  # of parentheses and negations inside each other

Scalar: TypeAlias = "str | int | float | bool"
Order = Literal["=", "<", "<=", ">", ">="]

# JSON's way to write a number. CSV and TSV hold texts only, so that years and prices come as such.
_NUMBER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_CHARS = 400  # a longer text is no number


# -- what an expression is made of -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a document: its name, or the names that lead to it through nested objects. `id` is the document's id.

    names  at least one; none of them means anything but itself: no wildcard, no position in a list
    """

    names: tuple[str, ...]

    @property
    def is_id(self) -> bool:
        """Whether this is the id of the document, not one of its fields."""
        return self.names == ("id",)

    def of(self, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a JSON value
        """The value in these fields; None where it is missing."""
        value: Any = fields
        for name in self.names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def __str__(self) -> str:
        return ".".join(name if _is_plain(name) else f'"{_doubled(name, chr(34))}"' for name in self.names)


@dataclass(frozen=True, slots=True)
class Compare:
    """The value is equal to, below or above another one. Only like is compared with like: see `_as`.

    value  truth values have no order
    """

    field: Field
    order: Order
    value: Scalar

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - a JSON value
        """Whether a field of this value passes."""
        found = _as(value, self.value)
        if found is None:
            return False
        return bool(_ORDERS[self.order](found, self.value))

    def __str__(self) -> str:
        return f"{self.field} {self.order} {_literal(self.value)}"


@dataclass(frozen=True)
class In:
    """The value is equal to one of several."""

    field: Field
    values: tuple[Scalar, ...]

    @cached_property
    def _keys(self) -> frozenset[tuple[type, Scalar]]:
        return frozenset(_key(value) for value in self.values)

    @cached_property
    def _has_numbers(self) -> bool:
        return any(kind is float for kind, _ in self._keys)

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - a JSON value
        """Whether a field of this value passes."""
        if not isinstance(value, str | int | float):
            return False
        if _key(value) in self._keys:
            return True
        number = _number(value) if self._has_numbers and isinstance(value, str) else None
        return number is not None and _key(number) in self._keys

    def __str__(self) -> str:
        return f"{self.field} in ({', '.join(map(_literal, self.values))})"


@dataclass(frozen=True)
class Like:
    """The value is a text of this form: `%` stands for any characters, `_` for one; a backslash makes either itself."""

    field: Field
    pattern: str

    @cached_property
    def _pieces(self) -> list[tuple[re.Pattern[str], int]]:
        """What stands between the `%`, and its length in characters. Nothing in it repeats, so no text takes long."""
        pieces: list[list[str]] = [[]]
        for sign in re.findall(r"\\.|.", self.pattern, re.DOTALL):
            if sign == "%":
                pieces.append([])
            else:
                pieces[-1].append("." if sign == "_" else re.escape(sign[-1]))
        return [(re.compile("".join(piece), re.DOTALL), len(piece)) for piece in pieces]

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - a JSON value
        """Whether a field of this value passes."""
        if not isinstance(value, str):
            return False
        if len(self._pieces) == 1:
            return self._pieces[0][0].fullmatch(value) is not None
        (first, at), *between, (last, width) = self._pieces
        if first.match(value) is None:
            return False
        for piece, _ in between:
            found = piece.search(value, at)  # the leftmost place leaves most room for the rest
            if found is None:
                return False
            at = found.end()
        return at <= len(value) - width and last.match(value, len(value) - width) is not None

    def __str__(self) -> str:
        return f"{self.field} like {_literal(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Has:
    """The value is a list with an element equal to this, or itself equal to it."""

    field: Field
    value: Scalar

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - a JSON value
        """Whether a field of this value passes."""
        elements = value if isinstance(value, list) else [value]
        return any(_as(element, self.value) == self.value for element in elements)

    def __str__(self) -> str:
        return f"{self.field} has {_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there and not null."""

    field: Field

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - a JSON value
        """Whether a field of this value passes."""
        return value is not None

    def __str__(self) -> str:
        return f"exists {self.field}"


Test: TypeAlias = "Compare | In | Like | Has | Exists"
Truth: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True, slots=True)
class Not:
    """What the operand is not."""

    operand: Expression

    def __str__(self) -> str:
        return f"not {_inside(self.operand)}"


@dataclass(frozen=True, slots=True)
class And:
    """All of these, two at least."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(map(_inside, self.operands))


@dataclass(frozen=True, slots=True)
class Or:
    """One of these, two at least."""

    operands: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(map(_inside, self.operands))


Expression: TypeAlias = "Test | Not | And | Or"


def combine(expression: Expression, truth: Callable[[Test], Truth]) -> Truth:
    """The truth of an expression for many documents at one time, from that of its tests (bool arrays, all as long)."""
    if isinstance(expression, Not):
        return ~combine(expression.operand, truth)
    if isinstance(expression, And):
        return reduce(np.logical_and, (combine(operand, truth) for operand in expression.operands))
    if isinstance(expression, Or):
        return reduce(np.logical_or, (combine(operand, truth) for operand in expression.operands))
    return truth(expression)


def holds(expression: Expression, id: str, fields: Mapping[str, Any]) -> bool:
    """Whether an expression is true of one document."""

    def truth(test: Test) -> Truth:
        return np.array([test.accepts(id if test.field.is_id else test.field.of(fields))])

    return bool(combine(expression, truth)[0])


# -- values ------------------------------------------------------------------------------------------

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _as(value: Any, wanted: Scalar) -> Scalar | None:  # noqa: ANN401 - a JSON value
    """`value` where it can be compared with `wanted`: text with text, truth with truth, number with number; else None.

    A text that is written as a number counts as this number beside a number.
    """
    if isinstance(wanted, bool):
        return value if isinstance(value, bool) else None
    if isinstance(wanted, str):
        return value if isinstance(value, str) else None
    return _number(value)


def _number(value: Any) -> int | float | None:  # noqa: ANN401 - a JSON value
    """The number that a value is, or is written as; None where it is none. Integers are exact, whatever their size."""
    if isinstance(value, str):
        if len(value) > _NUMBER_CHARS or not _NUMBER_TEXT.fullmatch(value):
            return None
        number: int | float = json.loads(value)
        return number if _is_finite(number) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_finite(number: int | float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _key(value: Scalar) -> tuple[type, Scalar]:
    """What two values share exactly if they are equal."""
    kind = bool if isinstance(value, bool) else str if isinstance(value, str) else float
    return kind, value


def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.lower() not in _WORDS


def _doubled(text: str, quote: str) -> str:
    return text.replace(quote, 2 * quote)


def _literal(value: Scalar) -> str:
    """A value as an expression has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{_doubled(value, chr(39))}'" if isinstance(value, str) else repr(value)


def _inside(expression: Expression) -> str:
    """An expression as an operand of another."""
    return f"({expression})" if isinstance(expression, And | Or) else str(expression)


# -- reading -----------------------------------------------------------------------------------------

_WORDS = frozenset({"and", "or", "not", "in", "like", "has", "exists", "is", "null", "true", "false"})
_NAME = re.compile(r"[^\W\d][\w-]*")
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<text>'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"]|"")+")'
    r"|(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    rf"|(?P<name>{_NAME.pattern})"
    r"|(?P<sign><=|>=|!=|=|<|>|\(|\)|,|\.)"
)
# What people bring along from other languages.
_HINTS = {
    "<>": "write !=",
    "==": "write = for equality",
    "=<": "write <=",
    "=>": "write >=",
    "&": "write and",
    "|": "write or",
    "!": "write not, or != for inequality",
    "'": "this text has no closing '; a quote inside a text is written twice",
    '"': 'this name has no closing ", or is empty; texts stand in single quotes',
    "[": "a list stands in parentheses: in ('de', 'fr')",
}


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece of an expression: `kind` is a group of _TOKEN, "word" for the words of the language, or "end"."""

    kind: str
    text: str
    at: int

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else f"{self.text:.40}"


def parse(text: str) -> Expression:
    """Read an expression.

    Raises BadFilter, which points at the place and says what was expected there; also for more than 100,000 characters
    and more than 50 levels of parentheses.
    """
    if not isinstance(text, str):
        raise BadFilter(f"a filter is a text such as \"lang = 'de'\", got {type(text).__name__}", "", 0)
    if len(text) > MAX_CHARS:
        raise BadFilter(f"a filter may have {MAX_CHARS:,} characters, this one has {len(text):,}", "", 0)
    return _Parser(text).all()


def parse_field(text: str) -> Field:
    """Read the name of a field, as expressions have it. Raises BadFilter."""
    parser = _Parser(text)
    field = parser.field()
    parser.expect("end", "nothing behind the name of a field")
    return field


class _Parser:
    """Recursive descent: a method for each rule, which begins at the token that is next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                self._fail_at_sign(at)
            kind, piece = str(found.lastgroup), found[0]
            if found.end() == at + 1 and self._text[at : at + 2] in _HINTS:
                self._fail_at_sign(at)
            if kind == "name" and piece.lower() in _WORDS:
                kind, piece = "word", piece.lower()
            if kind != "space":
                yield _Token(kind, piece, at)
            at = found.end()
        yield _Token("end", "", len(self._text))

    def _fail_at_sign(self, at: int) -> NoReturn:
        two, one = self._text[at : at + 2], self._text[at]
        hint = _HINTS.get(two) or _HINTS.get(one)
        what = f"{one!r} means nothing here; in the name of a field it stands in double quotes"
        if one.isascii() and one.isdigit():
            what = "this is no number; a text stands in single quotes"
        raise BadFilter(hint or what, self._text, at)

    # -- tokens ----------------------------------------------------------------------------------

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str, kinds: tuple[str, ...] = ("sign", "word")) -> _Token | None:
        """The next token if it is one of these, which is then done with."""
        token = self._token
        if token.kind not in kinds or (texts and token.text not in texts):
            return None
        self._next += 1
        return token

    def expect(self, text: str, what: str) -> None:
        """Take a token, or say that `what` was expected."""
        if self._take(text) is None and not (text == "end" and self._token.kind == "end"):
            self._fail(what)

    def _fail(self, expected: str) -> NoReturn:
        raise BadFilter(f"expected {expected}, got {self._token.shown}", self._text, self._token.at)

    # -- rules -----------------------------------------------------------------------------------

    def all(self) -> Expression:
        """The whole text."""
        found = self._either()
        self.expect("end", "and, or, or the end")
        return found

    def _either(self) -> Expression:
        operands = [self._both()]
        while self._take("or"):
            operands.append(self._both())
        return Or(tuple(operands)) if len(operands) > 1 else operands[0]

    def _both(self) -> Expression:
        operands = [self._single()]
        while self._take("and"):
            operands.append(self._single())
        return And(tuple(operands)) if len(operands) > 1 else operands[0]

    def _single(self) -> Expression:
        opening = self._take("not", "(")
        if opening is None:
            return self._test()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadFilter(
                f"more than {MAX_DEPTH} parentheses and negations inside each other", self._text, opening.at
            )
        if opening.text == "not":
            found: Expression = Not(self._single())
        else:
            found = self._either()
            self.expect(")", "and, or, or )")
        self._depth -= 1
        return found

    def _test(self) -> Expression:
        if self._take("exists"):
            return Exists(self.field())
        field = self.field()
        order = self._take("=", "!=", "<", "<=", ">", ">=")
        if order is not None:
            return self._comparison(field, order)
        if self._take("is"):
            absent = self._take("not") is None
            self.expect("null", "null, or not null")
            return Not(Exists(field)) if absent else Exists(field)
        negated = self._take("not") is not None
        found = self._membership(field, negated)
        return Not(found) if negated else found

    def _comparison(self, field: Field, order: _Token) -> Expression:
        start = self._token
        value = self._value()
        if order.text in ("=", "!="):
            same = Compare(field, "=", value)
            return same if order.text == "=" else Not(same)
        if isinstance(value, bool):
            raise BadFilter("true and false have no order; use = or !=", self._text, start.at)
        return Compare(field, order.text, value)  # type: ignore[arg-type]

    def _membership(self, field: Field, negated: bool) -> Test:
        if self._take("in"):
            return In(field, self._values())
        if self._take("has"):
            return Has(field, self._value())
        if self._take("like"):
            pattern = self._take(kinds=("text",))
            if pattern is None:
                self._fail("a text in single quotes, such as '%law%'")
            return Like(field, _content(pattern))
        self._fail("in, like or has" if negated else "=, !=, <, <=, >, >=, in, like, has or is behind the field")

    def _values(self) -> tuple[Scalar, ...]:
        self.expect("(", "( and a list of values")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self.expect(")", "a comma or )")
        return tuple(values)

    def _value(self) -> Scalar:
        token = self._take(kinds=("text", "number"))
        if token is not None:
            return _content(token) if token.kind == "text" else self._number(token)
        word = self._take("true", "false")
        if word is not None:
            return word.text == "true"
        if self._token.text == "null" and self._token.kind == "word":
            self._fail("a value (a field that is null or missing is found by: is null)")
        self._fail("a value: a text in single quotes, a number, true or false")

    def _number(self, token: _Token) -> int | float:
        if len(token.text) <= _NUMBER_CHARS:
            value = float(token.text) if set(token.text) & set(".eE") else int(token.text)
            if _is_finite(value):
                return value
        raise BadFilter("this number is too large", self._text, token.at)

    def field(self) -> Field:
        """A name, or several with dots between them."""
        names = [self._name()]
        while self._take("."):
            names.append(self._name())
        return Field(tuple(names))

    def _name(self) -> str:
        token = self._take(kinds=("name", "quoted"))
        if token is None:
            hint = ' (in double quotes, as it is a word of the language: "like")' if self._token.kind == "word" else ""
            self._fail(f"the name of a field{hint}")
        return _content(token)


def _content(token: _Token) -> str:
    """What a token stands for: without its quotes."""
    if token.kind == "name":
        return token.text
    quote = token.text[0]
    return token.text[1:-1].replace(2 * quote, quote)
