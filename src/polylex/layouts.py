"""Test collections as their publishers lay them out: what a user's folder, file or name stands for.

    read_collection("scifact")                      a BEIR folder
    read_collection("miracl:data/miracl:sw")        MIRACL, Swahili, from a local copy
    read_collection("mmarco:data/mmarco:de-en")     German queries, English passages
    read_collection("ir_datasets:beir/scifact/test")
    read_collection("qrels.txt")                    nothing but judgments, to score a run

Nothing is downloaded, but by ir_datasets, which has its own mechanism. `LAYOUTS` names the layouts; the docstring of
each reader says which files it expects and where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polylex.collection import Collection, Texts, Unknown, collect, judgments_of, read_beir, read_texts, records_of
from polylex.compression import SUFFIXES
from polylex.corpus import read_queries
from polylex.errors import BadInput, BadRecord, MissingExtra
from polylex.files import File, find_files
from polylex.records import JSON
from polylex.trec import Judgments, PathName, Query, read_judgments


def read_collection(
    data: PathName, *, split: str | None = None, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """Read the collection that `data` names: LAYOUT:FOLDER:LANGUAGE, a BEIR folder, or a qrels file.

    split      which part; the layout's usual one by default
    documents  False leaves them out: enough for an index or a run, and for collections that memory cannot hold
    unknown    judgments of queries and documents that are not there: "refuse", or "keep" as never found

    Raises BadInput for what is not there or not understood, BadRecord (file:line) for what cannot be read.
    """
    layout, _, rest = str(data).partition(":")
    if rest and layout in (*LAYOUTS, "ir_datasets") and not Path(data).exists():
        if layout == "ir_datasets":
            return from_ir_datasets(rest, documents=documents)
        folder, _, language = rest.rpartition(":")
        if not folder:
            raise BadInput(f"{data}: a language is missing; write {layout}:FOLDER:LANGUAGE, such as {layout}:data:de")
        return LAYOUTS[layout](folder, language, split, documents, unknown)
    path = Path(data)
    if path.is_dir():
        return read_beir(path, split or "test", documents=documents, unknown=unknown)
    if path.is_file():
        return only_judgments(path)
    raise BadInput(
        f"{data}: no such BEIR folder or qrels file, and no LAYOUT:FOLDER:LANGUAGE with a layout of "
        f"{', '.join(LAYOUTS)}, and no ir_datasets:ID"
    )


def only_judgments(path: PathName) -> Collection:
    """A collection of which nothing but the qrels is known: enough to score a run. Queries have no text."""
    judgments = read_judgments(path)
    name = Path(path).name.removesuffix(".gz")
    return collect(Path(name).stem, {}, (Query(query, "") for query in judgments), judgments)


# -- what publishers lay out -------------------------------------------------------------------------


def read_miracl(
    folder: PathName, language: str, split: str | None = None, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """MIRACL, 18 languages, queries and passages of Wikipedia in the same language. Split: dev, else train.

        miracl-v1.0-{language}/topics/topics.miracl-v1.0-{language}-{split}.tsv    query id, tab, query
        miracl-v1.0-{language}/qrels/qrels.miracl-v1.0-{language}-{split}.tsv      TREC's four columns
        miracl-corpus-v1.0-{language}/docs-*.jsonl.gz                              {"docid", "title", "text"}

    Home: huggingface.co/datasets/miracl/miracl (topics and qrels) and miracl/miracl-corpus; arXiv:2210.09984. `folder`
    is where both are; their folders may also stand side by side as miracl/ and miracl-corpus/ in it.
    """
    root, part = Path(folder), split or "dev"
    base = _found([root / f"miracl-v1.0-{language}", root / "miracl" / f"miracl-v1.0-{language}"])
    name = f"miracl-v1.0-{language}-{part}.tsv"
    queries = _queries(base / "topics" / f"topics.{name}", language)
    texts: Texts = {}
    if documents:
        corpus = f"miracl-corpus-v1.0-{language}"
        texts = read_texts(_shards(_found([root / corpus, root / "miracl-corpus" / corpus]), "docs-*.jsonl"), language)
    judged = judgments_of(base / "qrels" / f"qrels.{name}", queries, texts if documents else None, unknown)
    return collect(f"miracl-{language}-{part}", texts, queries, judged)


_MMARCO = {
    "ar": "arabic", "zh": "chinese", "nl": "dutch", "en": "english", "fr": "french", "de": "german", "hi": "hindi",
    "id": "indonesian", "it": "italian", "ja": "japanese", "pt": "portuguese", "ru": "russian", "es": "spanish",
    "vi": "vietnamese",
}  # fmt: skip


def read_mmarco(
    folder: PathName, language: str, split: str | None = None, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """MS MARCO passages, machine-translated into 13 languages. Split: dev.small (6,980 queries), else dev.

        google/collections/{name}_collection.tsv       passage id, tab, passage
        google/queries/dev/{name}_queries.dev.tsv      query id, tab, query; those without a judgment are left out
        qrels.{split}.tsv                              TREC's four columns

    {name} is german, chinese, ...; `language` its tag: "de", or "de-en" for German queries and English passages. The
    older translation stands in helsinki/ in place of google/, and is read where that is missing.

    Home: huggingface.co/datasets/unicamp-dl/mmarco, its folder data/; arXiv:2108.13897.
    """
    root, part = Path(folder), split or "dev.small"
    asked, _, written = language.partition("-")
    written = written or asked
    for tag in (asked, written):
        if tag not in _MMARCO:
            raise BadInput(f"mMARCO has no language {tag!r}; it has {', '.join(_MMARCO)}")
    base = _found([root / "google", root / "helsinki"])
    judged = read_judgments(_file(root / f"qrels.{part}.tsv"))
    found = _queries(base / "queries" / "dev" / f"{_MMARCO[asked]}_queries.dev.tsv", asked)
    queries = [query for query in found if query.id in judged]
    texts: Texts = {}
    if documents:
        texts = read_texts(find_files(_file(base / "collections" / f"{_MMARCO[written]}_collection.tsv")), written)
    if unknown == "refuse":
        judged = judgments_of(root / f"qrels.{part}.tsv", queries, texts if documents else None, unknown)
    return collect(f"mmarco-{language}-{part}", texts, queries, judged)


_NEUCLIR = {"fa": "fas", "ru": "rus", "zh": "zho"}
_TAGS = {code: tag for tag, code in _NEUCLIR.items()} | {"eng": "en"}
# Names of the topics and of the qrels of each year, as NIST has them.
_NEUCLIR_FILES = {
    "2022": ("topics.0720.utf8.jsonl", "2022-qrels.{code}"),
    "2023": ("neuclir-2023-topics.0605.jsonl", "qrels.final.gains.{code}"),
}


def read_neuclir(
    folder: PathName, language: str, split: str | None = None, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """TREC NeuCLIR: English queries; news in Persian (fa), Russian (ru) or Chinese (zh). Split: 2022, else 2023.

        data/{code}-*.jsonl.gz    {"id", "title", "text", ...}; {code} is fas, rus, zho
        2022  topics.0720.utf8.jsonl          2022-qrels.{code}
        2023  neuclir-2023-topics.0605.jsonl  qrels.final.gains.{code}  (out of neuclir-2023-qrels.final.tar.gz)

    A line of the topics has "topic_id" and a list "topics", each with "lang", "source", "topic_title" and
    "topic_description". The query is title and description of the original (lang eng); topics without a judgment are
    left out. `language` may name a query language too: "zho-fa" are the human translations into Chinese.

    Home: huggingface.co/datasets/neuclir/neuclir1 (documents); trec.nist.gov/data/neuclir2022.html, neuclir2023.html.
    """
    root, year = Path(folder), split or "2022"
    asked, _, written = language.rpartition("-")
    if written not in _NEUCLIR or year not in _NEUCLIR_FILES:
        raise BadInput(f"NeuCLIR has {', '.join(_NEUCLIR)} in {', '.join(_NEUCLIR_FILES)}, got {language!r}, {year!r}")
    topics, qrels = (name.format(code=_NEUCLIR[written]) for name in _NEUCLIR_FILES[year])
    judged = read_judgments(_file(root / qrels))
    queries = [topic for topic in _topics(root / topics, asked or "eng") if topic.id in judged]
    texts: Texts = {}
    if documents:
        texts = read_texts(_shards(_found([root / "data", root]), f"{_NEUCLIR[written]}-*.jsonl"), written)
    if unknown == "refuse":
        judged = judgments_of(root / qrels, queries, texts if documents else None, unknown)
    return collect(f"neuclir-{language}-{year}", texts, queries, judged)


def _topics(path: Path, language: str) -> Iterator[Query]:
    """The queries of a NeuCLIR file in one language; machine translations are passed over."""
    for file in find_files(_file(path)):
        for record in records_of(file):
            versions = record.fields.get("topics")
            name = record.fields.get("topic_id")
            if not isinstance(versions, list) or not isinstance(name, str):
                raise BadRecord(file.name, record.line, 'expected "topic_id" and a list "topics"')
            for version in versions:
                if isinstance(version, dict) and version.get("lang") == language and _is_human(version):
                    parts = (version.get("topic_title"), version.get("topic_description"))
                    text = " ".join(part for part in parts if isinstance(part, str) and part)
                    yield Query(name, text, _TAGS.get(language, language))
                    break


def _is_human(version: Mapping[str, JSON]) -> bool:
    return "machine" not in str(version.get("source", "")).lower()


def read_mkqa(
    folder: PathName, language: str, split: str | None = None, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """MKQA as question retrieval: a question in one of 25 languages finds its English original. No split.

        mkqa.jsonl.gz    {"example_id", "query", "queries": {language: translation}, ...}

    `language` is one of the file's ("zh_cn"), or several with commas; queries are called {language}-{example_id}. Each
    has one relevant document of some 10,000; English itself would be trivial. (MKQA proper asks for passages of
    Wikipedia that contain an answer; that needs another corpus, and judges strings, not documents.)

    Home: github.com/apple/ml-mkqa, dataset/mkqa.jsonl.gz; arXiv:2007.15207.
    """
    if split is not None:
        raise BadInput(f"MKQA has no splits, got {split!r}; leave it out")
    del unknown  # every question has its original
    root = Path(folder)
    file = root if root.is_file() else _packed(root / "mkqa.jsonl")
    spoken = language.split(",")
    texts: Texts = {}
    queries: list[Query] = []
    judged: Judgments = {}
    for source in find_files(file):
        for record in records_of(source):
            name, original, translations = _mkqa_row(source, record.line, record.fields)
            texts[name] = (original, "en")
            for tag in spoken:
                asked = translations.get(tag)
                if not isinstance(asked, str) or not asked.strip():
                    raise BadRecord(
                        source.name, record.line, f"no query in {tag!r}; there are {', '.join(translations)}"
                    )
                queries.append(Query(f"{tag}-{name}", asked, tag.replace("_", "-")))
                judged[f"{tag}-{name}"] = {name: 1}
    return collect(f"mkqa-{language}", texts if documents else {}, queries, judged)


def _mkqa_row(source: File, line: int, fields: Mapping[str, JSON]) -> tuple[str, str, dict[str, JSON]]:
    name, original, translations = (fields.get(field) for field in ("example_id", "query", "queries"))
    if not isinstance(name, int | str) or not isinstance(original, str) or not isinstance(translations, dict):
        raise BadRecord(source.name, line, 'expected "example_id", a string "query" and an object "queries"')
    return str(name), original, translations


def read_mldr(
    folder: PathName, language: str, split: str | None = None, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """MLDR: long documents in 13 languages, queries in the same. Split: test, else dev or train.

        mldr-v1.0-{language}/corpus.jsonl.gz     {"docid", "text"}
        mldr-v1.0-{language}/{split}.jsonl.gz    {"query_id", "query", "positive_passages": [{"docid", "text"}], ...}

    Home: huggingface.co/datasets/Shitao/MLDR; arXiv:2402.03216.
    """
    base, part = _found([Path(folder) / f"mldr-v1.0-{language}"]), split or "test"
    texts = read_texts(find_files(_packed(base / "corpus.jsonl")), language) if documents else {}
    queries: list[Query] = []
    judged: Judgments = {}
    for source in find_files(_packed(base / f"{part}.jsonl")):
        for record in records_of(source):
            name, text, answers = (record.fields.get(key) for key in ("query_id", "query", "positive_passages"))
            if not isinstance(name, str) or not isinstance(text, str) or not isinstance(answers, list):
                raise BadRecord(source.name, record.line, 'expected "query_id", "query" and a list "positive_passages"')
            queries.append(Query(name, text, language))
            judged[name] = dict.fromkeys(map(_docid, answers), 1)
            strange = [answer for answer in judged[name] if documents and answer not in texts]
            if strange and unknown == "refuse":
                raise BadRecord(source.name, record.line, f"no document {strange[0]!r} in {base.name}/corpus.jsonl")
    return collect(f"mldr-{language}-{part}", texts, queries, judged)


def _docid(answer: JSON) -> str:
    return str(answer.get("docid")) if isinstance(answer, dict) else str(answer)


Reader = Callable[[PathName, str, "str | None", bool, Unknown], Collection]
LAYOUTS: Mapping[str, Reader] = {
    "miracl": read_miracl,
    "mldr": read_mldr,
    "mmarco": read_mmarco,
    "mkqa": read_mkqa,
    "neuclir": read_neuclir,
}


def from_ir_datasets(name: str, *, documents: bool = True) -> Collection:
    """A data set by its ir_datasets id, such as "beir/scifact/test". That library downloads what is not there.

    Documents are their default_text() where it has one, else title, a space, text. Raises MissingExtra, BadInput for an
    unknown id and for a set without queries or qrels.
    """
    try:
        import ir_datasets
    except ImportError:
        raise MissingExtra("ir_datasets", "datasets", "Reading a data set by its id") from None
    try:
        found = ir_datasets.load(name)
    except KeyError:
        raise BadInput(f"ir_datasets has no {name!r}; ir-datasets.com lists what it has") from None
    if not (found.has_queries() and found.has_qrels() and found.has_docs()):
        raise BadInput(f"{name!r} of ir_datasets has no queries, qrels or documents; take a subset such as {name}/test")
    texts: Texts = {}
    if documents:
        language = found.docs_lang() or ""
        texts = {each.doc_id: (_default_text(each), language) for each in found.docs_iter()}
    spoken = found.queries_lang() or ""
    queries = [Query(each.query_id, _default_text(each), spoken) for each in found.queries_iter()]
    judged: Judgments = {}
    for each in found.qrels_iter():
        judged.setdefault(each.query_id, {})[each.doc_id] = max(int(each.relevance), 0)
    return collect(name.replace("/", "-"), texts, queries, judged)


def _default_text(record: Any) -> str:  # noqa: ANN401 - whatever class the data set has
    if hasattr(record, "default_text"):
        return str(record.default_text())
    parts = (getattr(record, "title", ""), getattr(record, "text", ""))
    return " ".join(part for part in parts if part)


# -- files -------------------------------------------------------------------------------------------


def _queries(path: Path, language: str) -> list[Query]:
    """Queries of a table without a heading, all in one language."""
    return [replace(query, language=language) for query in read_queries(_file(path), format="tsv")]


def _found(folders: Sequence[Path]) -> Path:
    """The first folder that is there."""
    for folder in folders:
        if folder.is_dir():
            return folder
    raise BadInput(
        f"no folder {' or '.join(map(str, folders))}; `polylex evaluate --help` says what a layout looks like"
    )


def _file(path: Path) -> Path:
    if not path.is_file():
        raise BadInput(f"{path}: no such file, which this layout has; get it from the collection's home")
    return path


def _packed(path: Path) -> Path:
    """A file, plain or packed."""
    candidates = [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)]
    return next((each for each in candidates if each.is_file()), None) or _file(path)


def _shards(folder: Path, pattern: str) -> list[File]:
    """Files that hold one corpus, plain or packed, in the order of their numbers."""
    names: Iterable[Path] = (path for end in ("", *SUFFIXES) for path in folder.glob(pattern + end))
    paths = sorted(names, key=lambda path: (len(path.name), path.name))
    if not paths:
        raise BadInput(f"{folder}: no {pattern}, plain or packed; get the documents from the collection's home")
    return find_files(list(paths))
