"""`polylex info` says what a path or this installation is; `polylex check` verifies an index."""

from __future__ import annotations

from importlib import import_module, util
from pathlib import Path
from typing import Any

import click

from polylex.cli import options
from polylex.cli.terminal import print_json, show, show_bytes, stdout
from polylex.cli.verb import Verb, argument, voice
from polylex.errors import BadInput, CorruptIndex

_EXTRAS = {
    "model": ("torch", "transformers", "onnx"),
    "hybrid": ("bm25s", "Stemmer"),
    "parquet": ("pyarrow",),
    "zstd": ("zstandard",),
    "server": ("starlette", "uvicorn", "httptools", "prometheus_client"),
}
_LIBRARIES = ("numpy", "onnxruntime", "tokenizers", "safetensors")


@click.command(
    "info",
    cls=Verb,
    short_help="Describe an index, a model, vectors, or this installation.",
    prints="A line a property; with --json one object.",
    examples="""
polylex info                        versions, bundled models, kernels, extras
polylex info articles.plx           documents, size, model and settings of an index
polylex info polylex-mini           what a model is
polylex info articles.safetensors   what a file of vectors holds
""",
)
@argument(
    "path", "[PATH]", "Index, model (name or folder) or file of vectors; without it this installation.", required=False
)
@options.as_json
def info(path: str | None, as_json: bool) -> None:
    """Tell what an index, a model, a file of vectors or this installation is."""
    facts = _installation() if path is None else _describe(path)
    if as_json:
        print_json(facts)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(_readable(name, value)))
    show(stdout(), table)


def _readable(name: str, value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A property as people read it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_readable(key, each)}" for key, each in value.items() if each is not None) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "bytes":
        return show_bytes(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _describe(path: str) -> dict[str, Any]:
    """The properties of whatever stands at a path."""
    from polylex.models import bundled

    folder = Path(path)
    if folder.is_file():
        return _vectors(folder)
    if path in bundled() or (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return _model(path)
    if not folder.exists():
        raise BadInput(f"{path} is neither a file, a folder nor a bundled model ({', '.join(bundled())})")
    return _index(path)


def _installation() -> dict[str, Any]:
    import platform

    from polylex import __version__
    from polylex.kernels import compiled
    from polylex.models import DEFAULT, bundled

    return {
        "polylex": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "models": [f"{name} (default)" if name == DEFAULT else name for name in bundled()],
        "kernels": "compiled" if compiled() else "numpy (no C compiler was there at installation; search is slower)",
        "libraries": {name: import_module(name).__version__ for name in _LIBRARIES},
        "extras": {
            name: "installed" if all(map(util.find_spec, modules)) else "not installed"
            for name, modules in _EXTRAS.items()
        },
    }


def _index(path: str) -> dict[str, Any]:
    from polylex.index import Index

    with Index.open(path) as index:
        found = index.info()

    return {
        "kind": "index",
        "path": str(found.path),
        "documents": found.documents,
        "terms_per_document": round(found.terms_per_document, 1),
        "bytes": found.bytes,
        "segments": found.segments,
        "precision": found.precision,
        "model": found.encoder or None,
        "weights": found.weights_id[:12] or None,
        "vocabulary": found.vocab[:12],
        "settings": dict(found.settings),
        "created": found.created,
        "format_version": found.format_version,
    }


def _model(name: str) -> dict[str, Any]:
    from polylex.config import ModelConfig
    from polylex.models import is_foreign, load, locate

    folder = locate(name)
    config = load(folder).config if is_foreign(folder) else ModelConfig.read(folder)
    return {
        "kind": "model",
        "path": str(folder),
        "name": config.name,
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "encoder": f"{config.encoder.get('model_type', '?')}, {config.encoder.get('num_hidden_layers', '?')} layers, "
        f"width {config.encoder.get('hidden_size', '?')}",
        "terms": {
            "English": config.pivot_size,
            "of the text": 0 if config.echo_placement == "none" else config.encoder.get("vocab_size", 0),
        },
        "echo": config.echo_placement,
        "max_length": f"{config.max_length} tokens, longer texts in windows that share {config.stride}",
        "weights": config.weights_id[:12] or None,
    }


def _vectors(path: Path) -> dict[str, Any]:
    from polylex.storage import load_vectors

    vectors, ids = load_vectors(path)
    return {
        "kind": "vectors",
        "path": str(path),
        "vectors": len(vectors),
        "ids": ids is not None,
        "terms_per_vector": round(vectors.nnz / len(vectors), 1) if len(vectors) else 0.0,
        "bytes": path.stat().st_size,
        "vocabulary": vectors.vocab[:12],
    }


@click.command(
    "check",
    cls=Verb,
    short_help="Verify the checksums of an index.",
    prints='"sound", or a line for every fault; with --json {"path", "sound", "faults"}.',
    examples="""
polylex check articles.plx
polylex check articles.plx -q || restore-the-backup
""",
)
@argument("path", "INDEX", "Folder written by `polylex index`.", type=click.Path())
@options.as_json
def check(path: str, as_json: bool) -> None:
    """Read every byte of an index and verify it against its checksums. Exits with 1 when there is a fault."""
    from polylex.index import Index

    try:
        with Index.open(path) as index:
            faults = index.check()
            size = index.info().bytes
    except CorruptIndex as reason:
        faults, size = [str(reason)], 0
    if as_json:
        print_json({"path": path, "sound": not faults, "faults": faults})
    else:
        for fault in faults:
            click.echo(fault)
        if not faults and not voice().quiet:
            click.echo(f"{path} is sound: {show_bytes(size)} verified")
    if faults:
        raise click.exceptions.Exit(1)
