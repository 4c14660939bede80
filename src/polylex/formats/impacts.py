"""Anserini and Seismic: JSON lines with one weight a term name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from polylex.corpus import document_text
from polylex.errors import BadInput
from polylex.formats.rows import LINES, Row
from polylex.profiles import PROFILES, Profile


@dataclass(frozen=True)
class Impacts:
    """{"id": "7", "contents": "...", "vector": {"e_music": 120}}: what JsonVectorCollection of Anserini reads.

    text  name of the field with the text of the document: the first text that its fields have, "" where there is none
    """

    profile: Profile
    text: str
    frame: tuple[str, str, str] = LINES

    def document(self, row: Row) -> Iterable[Any]:
        """One line."""
        return [{"id": row.id, self.text: _text(row), "vector": dict(zip(row.terms, row.values, strict=True))}]

    def query(self, row: Row) -> Iterable[Any]:
        """One line."""
        return self.document(row)

    def rows(self, values: Iterator[tuple[int, Any]]) -> Iterator[Row]:
        """Documents again; of their fields only the text is left."""
        for line, value in values:
            vector, text = value["vector"], value.get(self.text)
            fields = {"text": text} if text else {}
            yield Row(str(value["id"]), list(vector), list(vector.values()), fields, line)


ANSERINI = Impacts(PROFILES["anserini"], "contents")
SEISMIC = Impacts(PROFILES["seismic"], "content")


def _text(row: Row) -> str:
    try:
        return document_text(row.fields)
    except BadInput:
        return ""
