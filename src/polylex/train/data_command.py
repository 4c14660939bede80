"""`polylex data ...`: training data out of what people have. Each verb reads rows, changes them, writes rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from polylex.cli.verb import Verb, argument, voice

if TYPE_CHECKING:
    from polylex.train.data import Group, Pair
    from polylex.train.exclusion import Exclusion
    from polylex.train.teachers import Score

_OUT = click.option(
    "-o", "--out", required=True, metavar="OUT", type=click.Path(dir_okay=False),
    help="JSONL to write; packed if the name ends in .gz, .xz or .bz2.",
)  # fmt: skip
_PAIRS, _GROUPS = "pairs", "groups"


@click.group("data", short_help="Prepare training data.")
def data() -> None:
    """Prepare training data: pairs for `train align`, groups for `train distill`."""


# -- making rows -------------------------------------------------------------------------------------


@data.command(
    "pairs", cls=Verb, short_help="Parallel text to pairs.",
    prints="How many pairs were written.",
    examples="polylex data pairs news.en news.sw --language sw --source news --out pairs.jsonl.gz",
)  # fmt: skip
@argument("english", "ENGLISH", "Text file with one sentence a line, packed or not.", type=click.Path())
@argument("other", "OTHER", "Its translation, line by line.", type=click.Path())
@click.option("--language", required=True, metavar="CODE", help="Language of OTHER, e.g. sw.")
@click.option("--source", default="", metavar="NAME", help="Where the text is from; sampling balances sources.")
@click.option("--max-ratio", type=click.FloatRange(1), default=4.0, show_default=True, metavar="R",
              help="Leave out pairs of which one side has more than R times the bytes of the other.")  # fmt: skip
@_OUT
def pairs(english: str, other: str, language: str, source: str, max_ratio: float, out: str) -> None:
    """Make pairs of two files of parallel text."""
    from polylex.train.prepare import pairs_of_parallel_text, write_rows

    made = pairs_of_parallel_text(english, other, language=language, source=source, max_ratio=max_ratio)
    _say(f"{write_rows(out, made):,} pairs: {out}")


@data.command(
    "groups", cls=Verb, short_help="BEIR folders, or pairs, to groups.",
    prints="How many groups were written.",
    examples="""
polylex data groups my-collection --split train --out groups.jsonl.gz
polylex data groups pairs.jsonl.gz --out translations.jsonl.gz
""",
)  # fmt: skip
@argument("inputs", "IN...", "BEIR folders, or JSONL files of pairs.", nargs=-1, required=True, type=click.Path())
@click.option("--split", default="train", show_default=True, metavar="NAME", help="Judgments of a BEIR folder to use.")
@click.option("--min-grade", type=click.IntRange(1), default=1, show_default=True, metavar="G",
              help="Grade from which a document answers a query.")  # fmt: skip
@_OUT
def groups(inputs: Sequence[str], split: str, min_grade: int, out: str) -> None:
    """Make groups: of every judged query, or of every pair (translation as retrieval)."""
    from polylex.collection import read_beir
    from polylex.train.data import read_pairs
    from polylex.train.prepare import groups_of_collection, groups_of_pairs, write_rows

    def made() -> Iterator[Group]:
        for path in inputs:
            if Path(path).is_dir():
                yield from groups_of_collection(read_beir(path, split), min_grade=min_grade)
            else:
                yield from groups_of_pairs(read_pairs(path))

    _say(f"{write_rows(out, made()):,} groups: {out}")


# -- changing rows -----------------------------------------------------------------------------------


@data.command(
    "screen", cls=Verb, short_help="Drop what repeats a test collection.",
    prints="Rows kept, and per source how many were dropped for which reason (JSON with --json).",
    examples="polylex data screen groups.jsonl.gz --against xquad-x-en --against scifact-en --out clean.jsonl.gz",
)  # fmt: skip
@argument("rows", "IN", "JSONL of pairs or groups.", type=click.Path())
@click.option("--against", multiple=True, required=True, metavar="FOLDER",
              help="BEIR folder whose texts training must not repeat; give it as often as needed.")  # fmt: skip
@click.option("--without", multiple=True, metavar="SOURCE", help="Source to leave out, e.g. for its licence.")
@click.option("--window", type=click.IntRange(8), default=50, show_default=True, metavar="N",
              help="Neighbouring characters that make a leak when shared.")  # fmt: skip
@click.option("--cjk-window", type=click.IntRange(4), default=20, show_default=True, metavar="N",
              help="The same in Chinese, Japanese and Korean.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
@_OUT
def screen_rows(
    rows: str, against: Sequence[str], without: Sequence[str], window: int, cjk_window: int, as_json: bool, out: str
) -> None:
    """Drop rows whose text is in a test collection, whole or by a shared stretch of characters."""
    from polylex.train.prepare import screen, write_rows

    exclusion = _exclusion(against, window, cjk_window)
    # Both kinds of rows are screened alike; mypy cannot say so of a union.
    screened: Any = screen(_read(rows), exclusion, without=without)
    count = write_rows(out, screened.rows)
    if as_json:
        click.echo(json.dumps({"kept": count, "dropped": screened.dropped}))
        return
    _say(f"{count:,} rows kept: {out}")
    for source, counts in screened.dropped.items():
        _say(f"  {source or '(no source)'}: dropped " + ", ".join(f"{n:,} {reason}" for reason, n in counts.items()))


@data.command(
    "mine", cls=Verb, short_help="Find hard negatives.",
    prints="How many groups and negatives were written.",
    examples="polylex data mine groups.jsonl.gz --count 4 --depth 100 --out mined.jsonl.gz",
)  # fmt: skip
@argument("rows", "IN", "JSONL of groups; their documents are what is searched.", type=click.Path())
@click.option("--model", metavar="MODEL", help="Model that searches. [default: the bundled one]")
@click.option(
    "--count", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="Negatives of a group."
)
@click.option("--depth", type=click.IntRange(1), default=64, show_default=True, metavar="N", help="Ranks to draw from.")
@click.option("--skip", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Best ranks left out.")
@click.option("--max-share", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True, metavar="R",
              help="Leave out what scores more than R of the best positive.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the negatives that are there.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the drawing.")
@click.option("--index", "folder", metavar="FOLDER", help="Keep the index here, to continue an interrupted run.")
@_OUT
def mine_negatives(rows: str, model: str | None, folder: str | None, out: str, **settings: Any) -> None:  # noqa: ANN401
    """Give groups hard negatives: what our own index finds for the query, answers left out."""
    import polylex
    from polylex.train.data import read_groups
    from polylex.train.mining import Mining, mine
    from polylex.train.prepare import write_rows

    found = list(read_groups(rows))
    with TemporaryDirectory() as scratch, _progress("documents") as told:
        encoder = polylex.load(model) if model else polylex.load()
        mined = list(mine(found, encoder, folder or Path(scratch) / "mine.plx", Mining(**settings), on_documents=told))
    count = write_rows(out, mined)
    _say(f"{count:,} groups, {sum(len(group.negatives) for group in mined):,} negatives: {out}")


@data.command(
    "score", cls=Verb, short_help="Let a teacher score groups.",
    prints="How many groups were written.",
    examples="""
polylex data score groups.jsonl.gz --cross-encoder ./bge-reranker --out scored.jsonl.gz
polylex data score groups.jsonl.gz --dense ./multilingual-e5-small --query-prompt "query: " \\
    --document-prompt "passage: " --out scored.jsonl.gz
""",
)  # fmt: skip
@argument("rows", "IN", "JSONL of groups.", type=click.Path())
@click.option("--cross-encoder", metavar="FOLDER", help="Cross-encoder, by sentence-transformers.")
@click.option("--bi-encoder", metavar="FOLDER", help="Bi-encoder, by sentence-transformers, with its own similarity.")
@click.option(
    "--dense", metavar="FOLDER", help="Encoder of transformers with mean pooling (e5, MiniLM, mpnet); cosines."
)
@click.option("--query-prompt", default="", metavar="TEXT", help="Before each query, for --dense.")
@click.option("--document-prompt", default="", metavar="TEXT", help="Before each document, for --dense.")
@click.option("--device", metavar="NAME", help="cpu, cuda, ... [default: a GPU if there is one]")
@_OUT
def score(rows: str, out: str, **teacher: str | None) -> None:
    """Add a teacher's scores of every document to the groups."""
    from polylex.train.data import read_groups
    from polylex.train.prepare import write_rows
    from polylex.train.teachers import score_groups

    count = write_rows(out, score_groups(read_groups(rows), _teacher(teacher)))
    _say(f"{count:,} groups scored: {out}")


@data.command(
    "embed", cls=Verb, short_help="A dense teacher's vectors for a token cache.",
    prints="How many queries and documents were embedded.",
    examples='polylex data embed cache/groups --dense ./multilingual-e5-small --query-prompt "query: " '
    '--document-prompt "passage: "',
)  # fmt: skip
@argument("folder", "FOLDER", "Groups as `train distill` keeps them: tokens and texts.", type=click.Path())
@click.option("--dense", required=True, metavar="FOLDER", help="Encoder of transformers with mean pooling.")
@click.option("--query-prompt", default="", metavar="TEXT", help="Before each query.")
@click.option("--document-prompt", default="", metavar="TEXT", help="Before each document.")
@click.option("--device", metavar="NAME", help="cpu, cuda, ... [default: a GPU if there is one]")
def embed(folder: str, dense: str, query_prompt: str, document_prompt: str, device: str | None) -> None:
    """Write the vectors that in-batch distillation is taught by (in_batch_kl_weight)."""
    from polylex.train.data import Groups
    from polylex.train.teachers import DenseTeacher

    Groups.open(folder)
    teacher = DenseTeacher.read(
        dense, query_prompt=query_prompt, document_prompt=document_prompt, device=device or _best_device()
    )
    texts = {name: list(Groups.texts(folder, name)) for name in ("queries", "documents")}
    with _progress("texts") as told:
        vectors = {
            "queries": teacher.embed(texts["queries"], "query", on_texts=told),
            "documents": teacher.embed(texts["documents"], on_texts=told),
        }
    Groups.write_vectors(folder, **vectors)
    _say(f"{len(texts['queries']):,} queries, {len(texts['documents']):,} documents: {folder}")


# -- telling about rows ------------------------------------------------------------------------------


@data.command(
    "report", cls=Verb, short_help="What the data are made of.",
    prints="Markdown for a model card: sources, licences, languages, lengths; with --json one object.",
    examples="polylex data report pairs.jsonl.gz groups.jsonl.gz --licences licences.json > data.md",
)  # fmt: skip
@argument("files", "IN...", "JSONL of pairs or groups.", nargs=-1, required=True, type=click.Path())
@click.option("--licences", metavar="FILE", help='JSON of {"source or pattern": "licence"}, the first that fits.')
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
def report_rows(files: Sequence[str], licences: str | None, as_json: bool) -> None:
    """Count languages, lengths, sources and licences."""
    from polylex.train.report import report

    told = report({Path(path).name: _read(path) for path in files}, licences=_licences(licences))
    click.echo(json.dumps(told.as_json(), ensure_ascii=False) if as_json else told.as_markdown(), nl=as_json)


# -- parts -------------------------------------------------------------------------------------------


def _read(path: str) -> list[Pair] | list[Group]:
    """Rows of a file of either kind, told by its first record."""
    from polylex.compression import open_bytes
    from polylex.errors import BadInput
    from polylex.train.data import read_groups, read_pairs

    if not Path(path).is_file():
        raise BadInput(f"{path} does not exist; name a JSONL file of pairs or groups")
    with open_bytes(path) as stream:
        groups = b'"query"' in stream.readline()
    return list(read_groups(path)) if groups else list(read_pairs(path))


def _exclusion(folders: Sequence[str], window: int, cjk_window: int) -> Exclusion:
    from polylex.collection import read_beir
    from polylex.train.exclusion import Exclusion
    from polylex.train.prepare import texts_of

    texts = (text for folder in folders for text in texts_of(read_beir(folder)))
    return Exclusion.of(texts, window=window, cjk_window=cjk_window)


def _teacher(options: dict[str, str | None]) -> Score:
    from polylex.errors import BadInput
    from polylex.train.teachers import DenseTeacher, bi_encoder_scores, cross_encoder_scores

    kinds = ("cross_encoder", "bi_encoder", "dense")
    given = [kind for kind in kinds if options[kind]]
    if len(given) != 1:
        raise BadInput(f"name one teacher: --cross-encoder, --bi-encoder or --dense; got {len(given)}")
    folder, device = str(options[given[0]]), options["device"]
    if given[0] == "cross_encoder":
        return cross_encoder_scores(folder, device=device)
    if given[0] == "bi_encoder":
        return bi_encoder_scores(folder, device=device)
    return DenseTeacher.read(
        folder,
        query_prompt=options["query_prompt"] or "",
        document_prompt=options["document_prompt"] or "",
        device=device or _best_device(),
    ).scores


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _licences(path: str | None) -> dict[str, str]:
    from polylex.errors import BadInput

    if path is None:
        return {}
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise BadInput(f"{path} cannot be read as JSON: {fault}") from None
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise BadInput(f'{path} must be an object of texts, e.g. {{"wikipedia": "CC-BY-SA-4.0"}}')
    return table


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A counter on standard error, where somebody looks."""
    quiet = voice().quiet or not sys.stderr.isatty()

    def told(count: int) -> None:
        if not quiet:
            click.echo(f"\r{count:,} {what}", nl=False, err=True)

    yield told
    if not quiet:
        click.echo("", err=True)


def _say(text: str) -> None:
    if not voice().quiet:
        click.echo(text)
