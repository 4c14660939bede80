import json

import jsonschema
import pytest
from served import DOCUMENTS, WORDS, serving
from word_encoder import WordEncoder

from polylex.index import Index
from polylex.writer import IndexWriter

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that only reads."""
    with serving(tmp_path_factory.mktemp("api") / "i.plx") as served:
        yield served


@pytest.fixture
def writable(tmp_path):
    with serving(tmp_path / "i.plx", writable=True) as served:
        yield served


def ids(found):
    return [hit["id"] for hit in found["hits"]]


# -- searching -----------------------------------------------------------------------------------


def test_a_search_answers_with_ranks_scores_fields_and_the_terms_of_the_query(server):
    found = server.search("men marry", k=2)
    assert found["hits"] == [
        # men 1 x 1 + marry 1 x 2
        {"rank": 1, "id": "m1", "score": 3.0, "fields": DOCUMENTS[0], "explanation": None}
    ]
    assert found["query"]["text"] == "men marry"
    assert found["query"]["terms"] == [
        {"term": "e_marry", "view": "pivot", "weight": 1.0},
        {"term": "e_men", "view": "pivot", "weight": 1.0},
    ]
    assert (found["documents"], found["pruned"], found["facets"]) == (4, None, {})
    assert found["encode_ms"] >= 0
    assert found["search_ms"] > 0


def test_a_search_by_vector_needs_no_text(server):
    found = server.search(vector={"e_cats": 2.0, "e_sleep": 1.0})
    assert [(hit["id"], hit["score"]) for hit in found["hits"]] == [("c/1 ä", 3.0), ("d1", 2.0)]
    assert found["query"]["text"] is None
    assert found["query"]["language"] is None


def test_a_link_searches_as_a_body_does(server):
    parameters = {
        "q": "cats may",
        "k": "3",
        "where": "lang = 'de'",
        "fields": "lang,year",
        "facets": "lang",
        "top_k": "1",
    }
    linked = server.ask("GET", "/search", params=parameters).json()
    asked = server.search(
        "cats may", k=3, where="lang = 'de'", fields=["lang", "year"], facets=["lang"], prune={"top_k": 1}
    )
    for answer in (linked, asked):
        del answer["encode_ms"], answer["search_ms"]
    assert linked == asked


def test_a_link_explains_as_many_terms_as_it_says(server):
    for wish, terms in (("0", None), ("false", None), ("1", 1), ("2", 2), ("true", 2)):
        [hit] = server.ask("GET", "/search", params={"q": "men marry", "explain": wish}).json()["hits"]
        assert (hit["explanation"] and len(hit["explanation"]["matches"])) == terms, wish


def test_filters_fields_and_facets(server):
    found = server.search("cats may", where="year >= 2010", fields=["lang", "nope"], facets=["lang", "tags"])
    assert sorted(ids(found)) == ["c/1 ä", "d1", "l1"]
    assert {hit["id"]: hit["fields"] for hit in found["hits"]}["d1"] == {"lang": "fr"}
    assert found["facets"] == {
        "lang": [{"value": "de", "count": 2}, {"value": "fr", "count": 1}],
        "tags": [{"value": "law", "count": 1}, {"value": "school", "count": 1}],
    }
    assert [hit["fields"] for hit in server.search("cats", fields=[])["hits"]] == [{}, {}]


def test_facets_look_further_than_the_hits(server):
    found = server.search("cats may", k=1, facets=["lang"])
    assert len(found["hits"]) == 1
    assert sum(each["count"] for each in found["facets"]["lang"]) == 4


def test_a_search_as_if_the_index_had_been_pruned(server):
    found = server.search("men marry", prune={"top_k": 1})
    # of m1 only "marry" is left, which stands there twice
    assert [(hit["id"], hit["score"]) for hit in found["hits"]] == [("m1", 2.0)]
    # 4 + 5 + 2 + 3 terms
    assert found["pruned"]["terms_per_document_before"] == 3.5
    assert found["pruned"]["terms_per_document"] == 1.0
    assert found["pruned"]["bytes"] < found["pruned"]["bytes_before"]


def test_an_explanation_is_that_of_the_command_line(server):
    explanation = server.ask("POST", "/explain", json={"query": "men marry", "id": "m1", "limit": 1}).json()
    assert explanation["score"] == 3.0
    assert explanation["matches"] == [
        {
            "term": "e_marry", "view": "pivot", "query_weight": 1.0, "document_weight": 2.0, "product": 2.0,
            "share": 2 / 3, "query_words": [{"start": 4, "end": 9, "text": "marry"}],
            "document_words": [{"start": 18, "end": 23, "text": "marry"}],
        }
    ]  # fmt: skip
    hit = server.search("men marry", explain=1)["hits"][0]
    assert hit["explanation"] == explanation
    assert len(server.search("men marry", explain=True)["hits"][0]["explanation"]["matches"]) == 2


def test_an_explanation_of_a_pruned_search_counts_what_is_left(server):
    [hit] = server.search("men marry", prune={"top_k": 1}, explain=True)["hits"]
    assert hit["explanation"]["score"] == hit["score"] == 2.0
    assert [match["term"] for match in hit["explanation"]["matches"]] == ["e_marry"]


def test_only_so_many_hits_are_explained(tmp_path):
    with serving(tmp_path / "i.plx", explained=1) as served:
        hits = served.search("cats", explain=True)["hits"]
        assert [hit["explanation"] is None for hit in hits] == [False, True]


def test_the_language_of_a_query_is_named_where_it_is_sure(server):
    language = server.search("誰が結婚できますか")["query"]["language"]
    assert (language["code"], language["name"]) == ("ja", "Japanese")
    assert 0.6 <= language["confidence"] <= 1
    assert server.search("12 345")["query"]["language"] is None


# -- encoding ------------------------------------------------------------------------------------


def test_texts_are_encoded_heaviest_term_first(server):
    answer = server.ask("POST", "/encode", json={"texts": ["cats cats dogs", "", "dogs"], "top_k": 1}).json()
    cats, dogs = (
        {"term": f"e_{word}", "view": "pivot", "weight": weight} for word, weight in (("cats", 2.0), ("dogs", 1.0))
    )
    assert answer == {"vectors": [[cats], [], [dogs]]}
    assert server.ask("POST", "/encode", json={"texts": []}).json() == {"vectors": []}


def test_sparse_embeddings_are_those_of_text_embeddings_inference(server):
    place = {word: number for number, word in enumerate(WORDS.split())}
    one = server.ask("POST", "/embed_sparse", json={"inputs": "cats cats", "truncate": False, "unknown": 1}).json()
    assert one == [[{"index": place["cats"], "value": 2.0}]]
    two = server.ask("POST", "/embed_sparse", json={"inputs": ["dogs", "zero"], "prompt_name": "query"}).json()
    assert [[entry["index"] for entry in row] for row in two] == [[place["dogs"]], [place["zero"]]]


class Faulty(WordEncoder):
    """Cannot encode one text."""

    def encode(self, texts, **options):
        if "zero" in texts:
            raise RuntimeError("secret of ours")
        return super().encode(texts, **options)


def test_a_text_that_cannot_be_encoded_harms_nobody_else(tmp_path):
    with serving(tmp_path / "i.plx", encoder=Faulty(WORDS), threads=1, batch=8, batch_wait_ms=20) as served:
        good, bad = served.together(
            *(("POST", "/encode", {"json": {"texts": [text], "kind": "query"}}) for text in ("cats", "zero"))
        )
        assert good.status_code == 200
        assert (bad.status_code, bad.headers["content-type"]) == (500, PROBLEM)
        assert "secret" not in bad.text


# -- documents -----------------------------------------------------------------------------------


def test_documents_are_added_replaced_found_and_deleted(writable):
    new = [{"id": "n1", "text": "zero zero"}, {"id": "n/2?", "text": "zero", "lang": "sw"}]
    added = writable.ask("POST", "/documents", json={"documents": new}).json()
    assert added == {"added": 2, "replaced": 0, "documents": 6}
    assert ids(writable.search("zero")) == ["n1", "n/2?"]
    assert writable.ask("GET", "/documents/n%2F2%3F").json() == {"id": "n/2?", "fields": new[1]}

    upserted = [{"id": "n1", "text": "cats"}, {"id": "n3", "text": "zero"}]
    replaced = writable.ask("POST", "/documents", json={"documents": upserted, "mode": "upsert"}).json()
    assert replaced == {"added": 1, "replaced": 1, "documents": 7}
    assert ids(writable.search("zero")) == ["n/2?", "n3"]

    assert writable.ask("DELETE", "/documents/n%2F2%3F").json() == {"deleted": 1, "documents": 6}
    assert writable.ask("DELETE", "/documents/n%2F2%3F").status_code == 404
    assert writable.ask("POST", "/documents/delete", json={"ids": ["n1", "n3", "none"]}).json() == {
        "deleted": 2,
        "documents": 4,
    }
    assert ids(writable.search("zero")) == []


def test_an_id_that_is_there_is_a_conflict_and_changes_nothing(writable):
    for documents in ([{"id": "x", "text": "zero"}, {"id": "m1", "text": "zero"}], [{"id": "y", "text": "zero"}] * 2):
        answer = writable.ask("POST", "/documents", json={"documents": documents})
        assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
    assert ids(writable.search("zero")) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"text": "no id"}, "no id"),
        ({"id": "x"}, "no text"),
        ({"id": "x", "text": " "}, "empty text"),
        ({"id": "x", "text": ["cats"]}, "must be a string"),
        ({"id": "", "text": "cats"}, "empty id"),
        ({"id": "a\nb", "text": "cats"}, "control character"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_with_the_reason(writable, document, said):
    answer = writable.ask("POST", "/documents", json={"documents": [{"id": "ok", "text": "zero"}, document]})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert ids(writable.search("zero")) == []


def test_many_writers_at_the_same_time_share_transactions_and_each_gets_its_own_answer(writable, tmp_path):
    requests = [
        ("POST", "/documents", {"json": {"documents": [{"id": f"w{number % 10}", "text": "zero"}]}})
        for number in range(20)
    ]
    codes = sorted(answer.status_code for answer in writable.together(*requests))
    assert codes == [200] * 10 + [409] * 10
    assert len(writable.search("zero", k=100)["hits"]) == 10
    with Index.open(tmp_path / "i.plx") as index:
        assert index.generation < 10
        assert index.check() == []


def test_what_another_process_writes_is_seen_by_the_next_search(writable, tmp_path):
    with IndexWriter(tmp_path / "i.plx") as writer:
        writer.delete(["m1"])
    assert ids(writable.search("marry")) == []


def test_a_write_waits_for_other_writers_and_then_says_try_again(tmp_path):
    with serving(tmp_path / "i.plx", writable=True, lock_seconds=0.1) as served, IndexWriter(tmp_path / "i.plx"):
        answer = served.ask("POST", "/documents", json={"documents": [{"id": "n", "text": "zero"}]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert str(tmp_path) not in answer.text
        assert ids(served.search("marry")) == ["m1"]


def test_a_server_that_only_reads_changes_nothing(server):
    for method, url, body in (
        ("POST", "/documents", {"documents": [{"id": "n", "text": "cats"}]}),
        ("POST", "/documents/delete", {"ids": ["m1"]}),
        ("DELETE", "/documents/m1", None),
    ):
        answer = server.ask(method, url, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (403, PROBLEM)
    assert len(server.search("marry")["hits"]) == 1


def test_an_index_of_another_model_is_not_searched(tmp_path):
    with serving(tmp_path / "i.plx") as served:
        from polylex.retriever import Retriever

        other = WordEncoder("other words")
        Retriever.build(tmp_path / "i.plx", [{"id": "a", "text": "other"}], other, overwrite=True).close()
        assert served.ask("GET", "/health/ready").status_code == 503
        answer = served.ask("POST", "/search", json={"query": "cats"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert served.ask("GET", "/health/live").status_code == 200
        Retriever.build(tmp_path / "i.plx", DOCUMENTS[:1], WordEncoder(WORDS), overwrite=True).close()
        assert ids(served.search("marry")) == ["m1"]


# -- what there is -------------------------------------------------------------------------------


def test_info_tells_the_page_what_to_offer(server):
    info = server.ask("GET", "/info").json()
    assert info["documents"] == 4
    assert info["terms_per_document"] == 3.5
    assert info["writable"] is False
    assert {field["name"]: (field["kind"], field["facet"]) for field in info["fields"]} == {
        "id": ("keyword", False),
        "lang": ("keyword", False),  # 3 values for 4 documents tell little
        "year": ("number", False),
        "tags": ("list", False),
        "text": ("keyword", False),
    }
    assert info["limits"]["hits"] == 1000


def test_info_counts_languages_where_documents_tell(tmp_path):
    documents = [{"id": str(n), "lang": "de" if n < 6 else "fr", "text": "cats"} for n in range(8)]
    with serving(tmp_path / "i.plx", documents=documents) as served:
        info = served.ask("GET", "/info").json()
        assert info["languages"] == [{"code": "de", "documents": 6}, {"code": "fr", "documents": 2}]
        assert {field["name"] for field in info["fields"] if field["facet"]} == {"lang", "text"}


def test_health_and_metrics(server):
    for url in ("/health", "/health/live", "/health/ready"):
        assert server.ask("GET", url).json() == {"status": "ok"}
    server.search("cats")
    text = server.ask("GET", "/metrics").text
    assert 'polylex_requests_total{method="POST",route="/search",status="200"}' in text
    assert "polylex_documents 4.0" in text


def test_the_openapi_document_is_one(server):
    described = server.ask("GET", "/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    assert "/documents" not in described["paths"]  # not writable
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    found = described["paths"]["/search"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    root = {**found, "components": described["components"]}
    jsonschema.validate(server.search("men marry", explain=True, facets=["lang"], prune={"mass": 0.5}), root)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "Invalid JSON"),
        (b"", 400, "Invalid JSON"),
        (b'{"query": "\xff"}', 400, "Invalid JSON"),
        (b'{"query": "\\ud800"}', 400, "Invalid JSON"),
        (b"[" * 100_000, 400, "Invalid JSON"),
        (b'{"query": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, 400, "Invalid JSON"),
        (b"[]", 422, "body"),
        (b"{}", 422, "either query or vector"),
        (b'{"query": "a", "vector": {"e_cats": 1}}', 422, "either query or vector"),
        (b'{"query": 1}', 422, "query"),
        (b'{"query": "a", "k": 0}', 422, "k: "),
        (b'{"query": "a", "k": 1001}', 422, "k: "),
        (b'{"query": "a", "k": "3"}', 422, "k: "),
        (b'{"query": "a", "kk": 3}', 422, "kk: "),
        (b'{"query": "a", "prune": {"mass": 1.5}}', 422, "mass"),
        (b'{"query": "a", "prune": {"mass": NaN}}', 422, "mass"),
        (b'{"query": "a", "explain": -1}', 422, "explain"),
        (b'{"vector": {"e_nope": 1}}', 422, "no term 'e_nope'"),
        (b'{"vector": {"e_cats": -1}}', 422, "vector"),
        (b'{"vector": {"e_cats": 1e999}}', 422, "vector"),
        (b'{"vector": {"e_cats": 1}, "explain": true}', 422, "explained"),
        (b'{"query": "a", "facets": ["a b"]}', 422, "filter"),
        (b'{"query": "a", "where": "lang ="}', 422, "expected a value"),
        (b'{"query": "a", "where": "1; DROP TABLE documents"}', 422, "filter"),
        (b'{"query": "' + b"a" * 5_000 + b'"}', 413, "5,000 characters"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_with_the_reason(server, body, status, said):
    answer = server.ask("POST", "/search", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    problem = answer.json()
    assert problem["status"] == status
    assert said in problem["detail"]


def test_a_problem_with_a_filter_points_at_the_place(server):
    problem = server.ask("POST", "/search", json={"query": "a", "where": "lang = de"}).json()
    assert problem["at"] == 7
    assert server.ask("GET", "/search", params={"q": "a", "where": "lang = de"}).json()["at"] == 7


@pytest.mark.parametrize(
    "where",
    ["id = 'x'' or 1=1 --'", "\"'; DELETE FROM documents; --\" = 'x'", "lang like '%' || 'x'", "id in (select id)"],
)
def test_a_filter_reaches_no_database(server, where):
    assert server.ask("POST", "/search", json={"query": "cats", "where": where}).status_code in (200, 422)
    assert len(server.search("cats")["hits"]) == 2


@pytest.mark.parametrize(
    ("url", "body", "said"),
    [
        ("/encode", {"texts": ["a"] * 101}, "101 texts in one request"),
        ("/embed_sparse", {"inputs": ["a"] * 101}, "101 texts in one request"),
        ("/documents", {"documents": [{"id": "a", "text": "a"}] * 101}, "101 documents in one request"),
        ("/documents/delete", {"ids": ["a"] * 101}, "101 ids in one request"),
        ("/explain", {"query": "a", "id": "nope"}, "No document with that id"),
    ],
)
def test_more_than_a_request_may_have_is_refused(writable, url, body, said):
    answer = writable.ask("POST", url, json=body)
    assert answer.status_code in (404, 422)
    assert said in answer.json()["detail"]


def test_unknown_addresses_and_methods_are_problems_too(server):
    for method, url, status in (
        ("GET", "/nope", 404),
        ("GET", "/documents/nope", 404),
        ("PUT", "/search", 405),
        ("POST", "/nope", 405),  # pages are there to be read
        ("GET", "/documents/..%2F..%2Fetc%2Fpasswd", 404),
        ("GET", "/..%2f..%2f..%2fetc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "/documents/%00", 404),
        ("GET", "/documents/%ff%fe", 404),
    ):
        answer = server.ask(method, url)
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), (method, url)


def test_a_body_must_say_that_it_is_json(server):
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {} if kind is None else {"content-type": kind}
        answer = server.ask("POST", "/search", content=json.dumps({"query": "a"}).encode(), headers=headers)
        assert answer.status_code == 415
    fine = server.ask(
        "POST", "/search", content=b'{"query": "a"}', headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert fine.status_code == 200


def test_numbers_of_any_length_are_stored_or_refused(writable):
    for number in ("1" * 4000, "1" * 5000, "1e999", "-" + "9" * 6000, "NaN"):
        body = f'{{"documents": [{{"id": "n", "text": "zero", "x": {number}}}], "mode": "upsert"}}'
        answer = writable.ask("POST", "/documents", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400, 422), number[:10]
        assert writable.ask("GET", "/documents/n").status_code in (200, 404)


def test_no_answer_names_a_path_of_the_server(writable, tmp_path):
    (tmp_path / "i.plx" / "index.sqlite").rename(tmp_path / "gone")
    for method, url, body in (
        ("POST", "/search", {"query": "cats"}),
        ("POST", "/documents", {"documents": [{"id": "n", "text": "zero"}]}),
        ("GET", "/info", None),
        ("GET", "/health/ready", None),
    ):
        answer = writable.ask(method, url, json=body)
        assert answer.status_code in (500, 503)
        assert answer.headers["content-type"] == PROBLEM
        assert "tmp" not in answer.text
        assert "IndexNotFound" not in answer.text
    (tmp_path / "gone").rename(tmp_path / "i.plx" / "index.sqlite")
    assert ids(writable.search("marry")) == ["m1"]


def test_the_page_is_served_with_a_policy_that_lets_nothing_else_in(server):
    page = server.ask("GET", "/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    again = server.ask("GET", "/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_answer_has_the_headers_of_a_careful_server(server):
    for answer in (server.ask("GET", "/"), server.ask("GET", "/info"), server.ask("GET", "/nope")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    assert server.ask("GET", "/info").headers["cache-control"] == "no-store"
