"""Conditions: filters of other libraries as filters of ours (docs/filters.md).

    str(joined("and", [compared("lang", "==", "de"), compared("year", ">=", 2020)]))
    # lang = 'de' and year >= 2020

A dot leads into a nested object, as there. `!=` and `not in` hold where the field is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polylex.errors import BadInput
from polylex.filters import And, Compare, Exists, Expression, Field, Has, In, Like, Not, Or, Order, Scalar

_ORDERS: dict[str, Order] = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_OPPOSITES = {"!=": "==", "not in": "in"}


def compared(name: str, operator: str, value: object) -> Expression:
    """One test of a field.

    operator  ==, !=, <, <=, >, >=, in, not in; has (a list holds the value); like (the text holds the value)
    value     text, number or truth value, a list of them for `in`; None beside == and != for a missing field

    Raises BadInput.
    """
    if operator in _OPPOSITES:
        return Not(compared(name, _OPPOSITES[operator], value))
    field = Field(tuple(name.split(".")))
    if operator == "==" and value is None:
        return Not(Exists(field))
    if operator in _ORDERS:
        return Compare(field, _ORDERS[operator], _scalar(name, value))
    if operator not in _TESTS:
        known = ", ".join([*_ORDERS, *_OPPOSITES, *_TESTS])
        raise BadInput(f"a condition on {name!r} has the operator {operator!r}; filters of Polylex have {known}")
    return _TESTS[operator](field, name, value)


def joined(word: str, operands: Sequence[Expression]) -> Expression:
    """All ("and") or one ("or") of several, or not all of them ("not"). Raises BadInput for none, and other words."""
    if not operands:
        raise BadInput(f"{word!r} joins no condition; give one at least")
    if word == "not":
        return Not(joined("and", operands))
    if word not in ("and", "or"):
        raise BadInput(f"conditions are joined by and, or, not; got {word!r}")
    if len(operands) == 1:
        return operands[0]
    return And(tuple(operands)) if word == "and" else Or(tuple(operands))


def _one_of(field: Field, name: str, value: object) -> Expression:
    if not isinstance(value, list | tuple | set | frozenset):
        raise BadInput(f"`in` on {name!r} takes a list of values, got {value!r}")
    if not value:
        return And((Exists(field), Not(Exists(field))))  # nothing is one of none
    return In(field, tuple(_scalar(name, each) for each in value))


def _holds(field: Field, name: str, value: object) -> Expression:
    return Has(field, _scalar(name, value))


def _like(field: Field, name: str, value: object) -> Expression:
    if not isinstance(value, str):
        raise BadInput(f"a condition on the text of {name!r} takes a text, got {value!r}")
    for sign in "\\%_":
        value = value.replace(sign, "\\" + sign)
    return Like(field, f"%{value}%")


_TESTS: dict[str, Callable[[Field, str, Any], Expression]] = {"in": _one_of, "has": _holds, "like": _like}


def _scalar(name: str, value: object) -> Scalar:
    if not isinstance(value, str | int | float):
        raise BadInput(f"a condition on {name!r} compares with a text, a number or a truth value, got {value!r}")
    return value
