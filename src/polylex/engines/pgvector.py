"""PostgreSQL with pgvector 0.7 or later (0.8 for `hnsw`), by psycopg: a table with a `sparsevec` column.

engine = PgvectorEngine("postgresql://localhost/search", "articles", Space(vocab))

Without an index of vectors a search reads the whole table and is exact; `hnsw=True` makes an approximate index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polylex.engine import Rejected, Space, translate, unsupported
from polylex.errors import EngineError, EngineUnreachable, MissingExtra
from polylex.filters import Compare, Exists, Has, In, Like, Scalar, Test
from polylex.formats.rows import rows_of
from polylex.profiles import PROFILES
from polylex.stream import Batch
from polylex.vectors import SparseVectors

_DIMENSIONS = 1_000_000_000  # the most there are: vectors compare only with as many, and a map may grow

_MOST_NEIGHBOURS = 1_000  # that hnsw.ef_search may be

Condition = tuple[str, list[Any]]  # SQL with %s, and what stands for them


class PgvectorEngine:
    """A table with the columns id (text), terms (sparsevec) and fields (jsonb)."""

    def __init__(
        self,
        url: str,
        table: str,
        space: Space,
        *,
        hnsw: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Take an address; the connection is made when first needed, and made again when it is lost.

        hnsw     make an approximate index; documents may then have 1,000 terms
        options  go to psycopg.connect

        Raises MissingExtra.
        """
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("psycopg", "pgvector", "PostgreSQL") from None
        self._psycopg: Any = psycopg
        self.space, self.table, self._hnsw = space, table, hnsw
        self.profile = PROFILES["pgvector-hnsw" if hnsw else "pgvector"]
        self._url, self._options = url, options
        self._opened: Any = None

    @property
    def _connection(self) -> Any:  # noqa: ANN401 - the package is optional
        if self._opened is None or self._opened.closed:
            self._opened = self._psycopg.connect(self._url, autocommit=True, **self._options)
        return self._opened

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Rows of a statement in which {} is the table."""
        sql = self._psycopg.sql
        with _faults():
            cursor = self._connection.execute(sql.SQL(statement).format(sql.Identifier(self.table)), values)
            return cursor.fetchall() if cursor.description else []

    def create(self, *, replace: bool = False) -> None:
        """As Engine.create; also the extension, where this user may."""
        if replace:
            self.drop()
        self._run("CREATE EXTENSION IF NOT EXISTS vector")
        self._run(
            f"CREATE TABLE {{}} (id text PRIMARY KEY, terms sparsevec({_DIMENSIONS}) NOT NULL, fields jsonb NOT NULL)"
        )
        if self._hnsw:
            self._run("CREATE INDEX ON {} USING hnsw (terms sparsevec_ip_ops)")
        self.set_mark(self.space.mark)

    def drop(self) -> None:
        """As Engine.drop."""
        self._run("DROP TABLE IF EXISTS {}")

    def mark(self) -> str | None:
        """As Engine.mark: the comment on the table."""
        ((found,),) = self._run("SELECT obj_description(%s::regclass, 'pg_class')", [f'"{self.table}"'])
        return None if found is None else str(found)

    def set_mark(self, mark: str) -> None:
        """As Engine.set_mark."""
        sql = self._psycopg.sql
        with _faults():
            statement = sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier(self.table), sql.Literal(mark))
            self._connection.execute(statement)

    def push(self, batch: Batch) -> list[Rejected]:
        """As Engine.push: one statement, taken whole or not at all."""
        rows = list(rows_of(batch, self.profile, None))
        self._run(
            "INSERT INTO {} SELECT id, terms::sparsevec, fields::jsonb FROM unnest(%s::text[], %s::text[], %s::text[]) "
            "AS given(id, terms, fields) "
            "ON CONFLICT (id) DO UPDATE SET terms = excluded.terms, fields = excluded.fields",
            [
                [row.id for row in rows],
                [sparsevec(row.terms, row.values) for row in rows],
                [json.dumps(dict(row.fields)) for row in rows],
            ],
        )
        return []

    def delete(self, ids: Sequence[str]) -> None:
        """As Engine.delete."""
        self._run("DELETE FROM {} WHERE id = ANY(%s)", [list(ids)])

    def refresh(self) -> None:
        """Nothing: every statement is a transaction of its own."""

    def count(self) -> int:
        """As Engine.count."""
        return int(self._run("SELECT count(*) FROM {}")[0][0])

    def ids(self) -> Iterator[str]:
        """As Engine.ids."""
        return (id for (id,) in self._run("SELECT id FROM {}"))

    def search(self, queries: SparseVectors, k: int = 10, *, where: str | None = None) -> list[list[tuple[str, float]]]:
        """As Engine.search, one query after another."""
        dense = self.space.queries(queries)
        condition, values = ("true", []) if where is None else condition_of(where)
        statement = (
            f"SELECT id, -(terms <#> %s::sparsevec) FROM {{}} WHERE {condition} "
            "ORDER BY terms <#> %s::sparsevec LIMIT %s"
        )
        if self._hnsw:  # else it looks at 40 neighbours, whatever k is, and filters what it found
            self._run(f"SET hnsw.ef_search = {min(_MOST_NEIGHBOURS, max(100, 4 * k))}")
            self._run("SET hnsw.iterative_scan = strict_order")
        found = []
        for row in range(len(dense)):
            query = sparsevec(*(column.tolist() for column in dense.row(row)))
            hits = self._run(statement, [query, *values, query, k])
            found.append([(id, float(score)) for id, score in hits if score > 0])
        return found

    def close(self) -> None:
        """As Engine.close."""
        if self._opened is not None:
            self._opened.close()


def sparsevec(terms: Sequence[Any], weights: Sequence[float]) -> str:
    """A vector as pgvector reads it: {id:weight,...}/dimensions, with ids from 1."""
    return (
        "{"
        + ",".join(f"{term + 1}:{weight!r}" for term, weight in zip(terms, weights, strict=True))
        + (f"}}/{_DIMENSIONS}")
    )


def condition_of(where: str) -> Condition:
    """A filter as SQL over `id` and `fields`; never NULL. Braces are doubled, as they go through a format."""
    return translate(where, _test, _join)


def _join(word: str, parts: list[Condition]) -> Condition:
    values = [value for _, some in parts for value in some]
    if word == "not":
        return f"NOT {parts[0][0]}", values
    return "(" + f" {word.upper()} ".join(sql for sql, _ in parts) + ")", values


def _test(test: Test) -> Condition:
    if test.field.is_id:
        return _id_test(test)
    path: list[Any] = [list(test.field.names)]
    if isinstance(test, Exists):
        return "coalesce(fields #> %s <> 'null'::jsonb, false)", path
    if isinstance(test, Has):
        return "coalesce(fields #> %s @> %s::jsonb, false)", [*path, json.dumps(test.value)]
    if isinstance(test, In):
        return "coalesce(fields #> %s = ANY(%s::jsonb[]), false)", [*path, [json.dumps(each) for each in test.values]]
    if isinstance(test, Like):
        return (
            "CASE WHEN jsonb_typeof(fields #> %s) = 'string' THEN fields #>> %s LIKE %s ELSE false END",
            [*path, *path, test.pattern],
        )
    if test.order == "=":
        return "coalesce(fields #> %s = %s::jsonb, false)", [*path, json.dumps(test.value)]
    kind, cast = ("string", '%s::text COLLATE "C"') if isinstance(test.value, str) else ("number", "%s::numeric")
    left = "(fields #>> %s)" + ("" if kind == "string" else "::numeric")
    return (
        f"CASE WHEN jsonb_typeof(fields #> %s) = '{kind}' THEN {left} {test.order} {cast} ELSE false END",
        [*path, *path, test.value],
    )


def _id_test(test: Test) -> Condition:
    if isinstance(test, Exists):
        return "true", []
    if isinstance(test, Like):
        return "id LIKE %s", [test.pattern]
    values: tuple[Scalar, ...] = test.values if isinstance(test, In) else (test.value,)
    if not all(isinstance(value, str) for value in values):
        raise unsupported(test, "PostgreSQL, for ids,")
    if isinstance(test, Compare):
        return f'id COLLATE "C" {test.order} %s::text COLLATE "C"', [test.value]
    return "id = ANY(%s)", [list(values)]


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what psycopg raises into our errors."""
    import psycopg

    try:
        yield
    except psycopg.OperationalError as fault:
        raise EngineUnreachable(f"PostgreSQL: {fault}; check that it runs and has room") from fault
    except psycopg.Error as fault:
        raise EngineError(f"PostgreSQL: {fault}") from fault
