"""Catalog: the one SQLite file of an index. It says which segments count and holds the documents.

What it does not name does not exist: segment files are written first, one transaction then makes them visible.
The tables are specified in docs/format.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from polylex.errors import (
    BadInput,
    CorruptIndex,
    DocumentNotFound,
    DuplicateId,
    IndexLocked,
    IndexNotFound,
    UnknownFormat,
)
from polylex.storage import storage_full

NAME = "index.sqlite"
APPLICATION = 0x504C5831  # "PLX1", in the header of the SQLite file
VERSION = 1  # of the whole index folder; the header's user_version

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (
    first_row INTEGER PRIMARY KEY, rows INTEGER NOT NULL, postings INTEGER NOT NULL,
    file TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, fields TEXT NOT NULL, crc32 INTEGER NOT NULL);
"""
_VARIABLES = 500  # in one statement; SQLite before 3.32 allows 999
_DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One line of the table of segments.

    first_row  int  row of its first document
    rows       int  documents
    postings   int  (document, term) weights
    file       str  name in the index folder
    bytes      int  size of the file
    sha256     str  hex
    """

    first_row: int
    rows: int
    postings: int
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """A stored document: its row, id and fields (any JSON object)."""

    row: int
    id: str
    fields: Mapping[str, Any]
