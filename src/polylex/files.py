"""Which files hold the documents, and in what format: what a user's path, folder or `-` stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from polylex.compression import SUFFIXES
from polylex.errors import BadInput
from polylex.text import clean

PathName: TypeAlias = "str | PathLike[str]"
Format = Literal["jsonl", "tsv", "csv", "parquet", "text", "lines"]
FORMATS: tuple[Format, ...] = get_args(Format)

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".md": "text",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file to read records from.

    path    where it is; "-" is standard input
    name    what error messages call it
    label   what generated ids call it: the path below the folder that was given, so that moving it changes no id
    format  what it holds
    """

    path: PathName
    name: str
    label: str
    format: Format


def find_files(paths: PathName | Sequence[PathName], format: Format | None = None) -> list[File]:
    """The files behind one or more paths, in order; those of a folder sorted.

    format  None takes it from each name, and JSON lines for standard input

    Raises BadInput for a path that is not there, a format that is unknown or cannot be told, and a folder that
    cannot be listed or has no documents.
    """
    if format is not None and format not in FORMATS:
        raise BadInput(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    listed: list[PathName] = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not listed:
        raise BadInput("no path given; name a file, a folder, or - for standard input")
    return [file for path in listed for file in _behind(path, format)]


def beir_file(folder: Path, stem: Literal["corpus", "queries"]) -> Path | None:
    """`<stem>.jsonl` in this folder, packed or not; None where there is none."""
    names = (f"{stem}.jsonl{packed}" for packed in ("", *SUFFIXES))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _behind(path: PathName, format: Format | None) -> list[File]:
    if str(path) == "-":
        if format == "parquet":
            raise BadInput("Parquet cannot be read from standard input; give the file's path")
        return [File("-", "<stdin>", "stdin", format or "jsonl")]
    path = Path(path)
    if not os.path.exists(path):
        raise BadInput(f"{clean(str(path))}: no such file or folder")
    if path.is_dir():
        return _in_folder(path, format)
    known = format or _format_of(path)
    if known is None:
        raise BadInput(
            f"{clean(str(path))}: cannot tell the format from the name; name the format ({', '.join(FORMATS)}) or use "
            f"one of the endings {' '.join(_ENDINGS)}"
        )
    return [_file(path, path.parent, known)]


def _in_folder(folder: Path, format: Format | None) -> list[File]:
    corpus = beir_file(folder, "corpus")
    is_beir = beir_file(folder, "queries") is not None or (folder / "qrels").is_dir()
    if corpus is not None and is_beir and format in (None, "jsonl"):
        return [_file(corpus, folder, "jsonl")]
    held: Format | None = "text" if format == "lines" else format
    kinds = ((path, _format_of(path)) for path in _walk(folder))
    found = [_file(path, folder, format or kind) for path, kind in kinds if kind is not None and held in (None, kind)]
    if not found:
        endings = [ending for ending, kind in _ENDINGS.items() if held in (None, kind)]
        raise BadInput(f"{clean(str(folder))}: no documents in this folder; looked for {' '.join(endings)}")
    if format is None:  # a README.md beside tables is no document
        return [file for file in found if file.format != "text"] or found
    return found


def _walk(folder: Path) -> list[Path]:
    """All files below `folder` that are not hidden, in the order of their paths in it."""
    found = []
    for here, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _refuse(error: OSError) -> None:
    raise BadInput(f"{clean(str(error.filename))}: this folder cannot be listed: {error.strerror}") from error


def _file(path: Path, folder: Path, format: Format) -> File:
    return File(path, clean(str(path)), clean(path.relative_to(folder).as_posix()), format)


def _format_of(path: Path) -> Format | None:
    unpacked = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return _ENDINGS.get(unpacked.suffix.lower())
