"""`polylex export` and `polylex import`: vectors to and from the files of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polylex.cli import options
from polylex.cli.encode import refuse
from polylex.cli.terminal import note, print_json, show, show_bytes, show_count, stdout
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput

if TYPE_CHECKING:
    from polylex.fit import Fit
    from polylex.stream import Stream
    from polylex.termmap import TermMap
    from polylex.vocab import Vocab

_FORMATS = ("csr", "anserini", "seismic", "ciff", "opensearch", "elasticsearch", "qdrant", "milvus", "parquet")
_PROFILES = (*_FORMATS, "opensearch-sparse", "pgvector", "pgvector-hnsw", "vespa")
_MAP_HELP = "File with the dense ids of a collection; made, or grown, where terms are new."


@click.command(
    "export",
    cls=Verb,
    short_help="Write vectors for another engine.",
    prints="With --check what the engine would refuse, fold, round or rename; with --json one object, with or without "
    "--check. Exit code 1 if it would refuse or fold something: then nothing is written.",
    examples="""
polylex export articles.plx --check elasticsearch
polylex export articles.plx articles.ndjson --to opensearch
polylex export articles.plx rows.json --to milvus --map articles.map
polylex export queries.safetensors queries.jsonl --to anserini --query
""",
)
@argument("source", "IN", "Index, or file written by `polylex encode --out`.", type=click.Path())
@argument("out", "[OUT]", "File to write; refused if it exists, unless --overwrite.", required=False)
@click.option("--to", "form", type=click.Choice(_FORMATS), help="What OUT is for.")
@click.option("--check", "check", type=click.Choice(_PROFILES), help="Write nothing; tell what this engine would do.")
@click.option("--map", "map_path", metavar="FILE", help=_MAP_HELP)
@click.option("--query", "queries", is_flag=True, help="IN holds queries, not documents.")
@options.model_of_index
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@options.as_json
def export(
    source: str,
    out: str | None,
    form: str | None,
    check: str | None,
    map_path: str | None,
    queries: bool,
    overwrite: bool,
    **settings: Any,  # noqa: ANN401 - model and as_json
) -> None:
    """Write the vectors of an index, or of a file of vectors, as another engine reads them.

    What the engine would refuse or silently fold together stops the export; what it rounds or renames is reported.
    """
    if bool(out and form) == bool(check) or bool(out) != bool(form):
        raise click.UsageError("give OUT and --to FORMAT, or --check PROFILE")
    from polylex.exchange import export as write
    from polylex.exchange import inspect
    from polylex.profiles import profile

    target = Path(out) if out else None
    if target:
        refuse(target, overwrite)
    limits = profile(check or str(form))
    with _opened(source, settings["model"], limits.terms == "names" or map_path is not None) as (stream, vocab):
        terms = _mapped(stream, map_path, queries)
        if terms is not None:
            if limits.terms == "names":
                raise BadInput(f"{limits.name} calls terms by name, which needs no map; leave --map away")
            mapping = terms
            stream = stream.through(lambda vectors: mapping.to_dense(vectors, "drop" if queries else "refuse"))
        fit = inspect(stream, limits, vocab, mapped=terms is not None, queries=queries)
        if target and form and fit.fits:
            if terms is not None and map_path is not None and not queries:
                terms.save(map_path)  # before the file that needs it
            size = 0 if terms is None else len(terms)
            write(stream, target, form, vocab, terms=size, queries=queries)  # type: ignore[arg-type]
    _report(fit, target, settings["as_json"])
    if target and not fit.fits:
        fit.require()
    if not fit.fits:
        raise click.exceptions.Exit(1)


@contextmanager
def _opened(source: str, model: str | None, named: bool) -> Iterator[tuple[Stream, Vocab | None]]:
    """What IN holds, and the names of its terms: those of the index, or where they are needed those of the model."""
    from polylex.stream import Stream

    if Path(source).is_dir():
        from polylex.index import Index

        with Index.open(source) as index:
            yield Stream.of_index(index), index.vocab
        return
    from polylex.storage import load_vectors

    vectors, ids = load_vectors(source)
    if ids is None:
        raise BadInput(f"{source} has vectors without ids; encode them again with `polylex encode`")
    vocab = _vocab(model)
    if named or vocab.fingerprint == vectors.vocab:
        vocab.require(vectors)
    yield Stream.of_vectors(vectors, ids), vocab if vocab.fingerprint == vectors.vocab else None


def _vocab(model: str | None) -> Vocab:
    from polylex.models import DEFAULT, load

    return load(model or DEFAULT).vocab


def _mapped(stream: Stream, path: str | None, queries: bool) -> TermMap | None:
    """The map to use: from its file, grown by what documents need."""
    if path is None:
        return None
    from polylex.exchange import terms_of
    from polylex.termmap import TermMap

    if Path(path).exists():
        terms = TermMap.load(path)
        return terms if queries else terms.grown(terms_of(stream))
    if queries:
        raise BadInput(f"there is no map {path}; export the documents with --map first, queries then use its ids")
    return TermMap(stream.vocab, terms_of(stream))


def _report(fit: Fit, target: Path | None, as_json: bool) -> None:
    written = target is not None and fit.fits
    if as_json:
        found = [finding.to_dict() for finding in fit.findings]
        out = str(target) if written else None
        print_json(
            {"profile": fit.profile.name, "documents": fit.documents, "fits": fit.fits, "findings": found, "out": out}
        )
        return
    if voice().quiet:
        return
    if target is None:
        _show(fit)
        return
    for finding in fit.findings:
        note(f"{finding.kind}: {finding.text}")
    if written:
        note(f"{show_count(fit.documents, 'vector')} in {target}, {show_bytes(target.stat().st_size)}")


def _show(fit: Fit) -> None:
    """The findings, for people."""
    from rich.text import Text

    console = stdout()
    verdict = ("fits", "green") if fit.fits else ("does not fit", "red")
    show(console, Text.assemble(f"{show_count(fit.documents, 'vector')} for {fit.profile.name}: ", verdict))
    for finding in fit.findings:
        style = "red" if finding.harmful else "yellow"
        show(console, Text.assemble("  ", (finding.kind, style), f"  {finding.text}"))
        if finding.examples:
            show(console, Text(f"    such as {', '.join(finding.examples)}", "dim"))
        if finding.advice:
            show(console, Text(f"    {finding.advice}", "dim"))


@click.command(
    "import",
    cls=Verb,
    short_help="Read vectors from another engine's file.",
    prints="Nothing on standard output; with --json one object: in, out, documents, terms_per_document.",
    examples="""
polylex import articles.ndjson articles.safetensors --from opensearch
polylex import index.ciff articles.plx --from ciff --index
polylex import rows.json articles.safetensors --from milvus --map articles.map
""",
)
@argument("source", "IN", "File of `polylex export`, or of another program.", type=click.Path())
@argument("out", "OUT", "File of vectors, or index, to write; refused if it exists, unless --overwrite.")
@click.option("--from", "form", type=click.Choice(_FORMATS), required=True, help="What IN is.")
@click.option("--index", "as_index", is_flag=True, help="Build an index, with the fields of the documents.")
@click.option("--map", "map_path", metavar="FILE", help="File with the dense ids that IN has.")
@options.model
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@options.as_json
def import_(
    source: str,
    out: str,
    form: str,
    as_index: bool,
    map_path: str | None,
    model: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Read vectors that another program, or `polylex export`, has written. They are held in memory."""
    from polylex.exchange import restore
    from polylex.models import load
    from polylex.termmap import TermMap

    if not as_index:
        refuse(Path(out), overwrite)
    encoder = load(model)
    terms = None if map_path is None else TermMap.load(map_path)
    space = None if terms is None else terms.fingerprint
    vectors, ids, fields = restore(Path(source), form, encoder.vocab, space)  # type: ignore[arg-type]
    if terms is not None:
        vectors = terms.to_terms(vectors)
    encoder.vocab.require(vectors)
    if as_index:
        from polylex.index import Index

        identity = {"encoder": encoder.name, "weights_id": encoder.weights_id, "settings": {"model": encoder.source}}
        Index.build(out, vectors, ids, fields, vocab=encoder.vocab, overwrite=overwrite, **identity).close()
    else:
        from polylex.storage import save_vectors

        save_vectors(out, vectors, ids)
    mean = vectors.nnz / max(1, len(vectors))
    if as_json:
        print_json({"in": source, "out": out, "documents": len(vectors), "terms_per_document": round(mean, 1)})
    else:
        note(f"{show_count(len(vectors), 'vector')} in {out}, {mean:.0f} terms each")
