"""What `polylex search` takes beside a query: filters, facets, several indexes, BM25; and fusing its runs."""

import json
from functools import cache

import pytest
from click.testing import CliRunner

from polylex import models
from polylex.cli import program

DOCUMENTS = [
    {"id": "en", "lang": "en", "year": 2020, "text": "Men and women of full age have the right to marry."},
    {"id": "de", "lang": "de", "year": 2021, "text": "Männer und Frauen haben das Recht zu heiraten."},
    {"id": "fr", "lang": "fr", "text": "Toute personne a droit à l'éducation, code XJ-4711."},
]
QUERY = "men and women may marry"


def run(*arguments):
    return CliRunner().invoke(program, [str(each) for each in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def answer(*arguments):
    return json.loads(done("search", *arguments, "--json"))


def ids(found):
    return [hit["id"] for hit in found["hits"]]


@pytest.fixture(scope="module", autouse=True)
def one_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", cache(models.load))
        yield


def build(folder, name, documents, *options):
    corpus = folder / f"{name}.jsonl"
    corpus.write_text("".join(json.dumps(each) + "\n" for each in documents), "utf-8")
    done("index", corpus, "--out", folder / name, "-q", *options)
    return folder / name


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build(tmp_path_factory.mktemp("index"), "all.plx", DOCUMENTS, "--bm25")


# -- filters and facets ------------------------------------------------------------------------------


def test_a_filter_leaves_the_documents_that_pass(index):
    assert set(ids(answer(index, QUERY))) >= {"en", "de"}
    assert ids(answer(index, QUERY, "--where", "lang = 'de'")) == ["de"]
    assert "fr" not in ids(answer(index, QUERY, "--where", "year >= 2020"))
    assert ids(answer(index, QUERY, "--where", "lang = 'xx'")) == []


def test_a_mistake_in_a_filter_is_a_usage_error_that_points_at_it(index):
    result = run("search", index, QUERY, "--where", 'lang = "de"')
    assert result.exit_code == 2
    assert "expected a value" in result.stderr
    place, mark = result.stderr.splitlines()[-2:]
    assert place[mark.index("^") :] == '"de"'
    assert run("search", index, QUERY, "--facets", "lang,=").exit_code == 2


def test_facets_count_over_the_hits(index):
    found = answer(index, QUERY, "--facets", "lang,year", "--where", "year >= 2020")
    assert found["facets"] == {
        "lang": [{"value": "de", "count": 1}, {"value": "en", "count": 1}],
        "year": [{"value": 2020, "count": 1}, {"value": 2021, "count": 1}],
    }
    lines = done("search", index, QUERY, "--facets", "lang,none", "--where", "year >= 2020").splitlines()
    assert lines[-2:] == ["  lang  de 1, en 1", "  none  none"]
    assert run("search", index, QUERY, "--facets", "lang", "--trec").exit_code == 2


def test_many_values_of_a_facet_are_summed_up(tmp_path):
    path = build(tmp_path, "many.plx", [{**DOCUMENTS[0], "id": str(at), "key": f"k{at:02}"} for at in range(13)])
    last = done("search", path, QUERY, "-k", "13", "--facets", "key").splitlines()[-1]
    assert last == "  key  " + ", ".join(f"k{at:02} 1" for at in range(10)) + ", 3 more"


# -- several indexes ---------------------------------------------------------------------------------


def test_several_indexes_are_searched_as_one(index, tmp_path):
    shards = [build(tmp_path, f"{each['id']}.plx", [each]) for each in DOCUMENTS]
    one, several = answer(index, QUERY, "--facets", "lang"), answer(*shards, QUERY, "--facets", "lang")
    assert several == one
    assert "marry" in done("search", *shards, QUERY, "--explain", "--threads", "2")
    assert ids(answer(shards[0], shards[0], QUERY)) == ["en"]  # given again, it is a word of the query


# -- BM25 --------------------------------------------------------------------------------------------


def test_hybrid_search_finds_codes_to_the_letter(index):
    found = answer(index, "xj 4711", "--hybrid")
    assert ids(found)[0] == "fr"
    assert found["hits"][0]["score"] <= 2 / 61
    assert ids(answer(index, "marry xj 4711", "--hybrid", "--where", "lang != 'fr'"))[0] == "en"
    assert "0.0" in done("search", index, "xj 4711", "--hybrid", "-k", "1")


def test_bm25_is_added_to_an_index_and_asked_for_where_it_is_missing(tmp_path):
    path = build(tmp_path, "plain.plx", DOCUMENTS[:1])
    result = run("search", path, QUERY, "--hybrid")
    assert result.exit_code == 1
    assert "polylex bm25" in result.stderr
    assert done("bm25", path).startswith("Counted the words of 1 document in ")
    assert json.loads(done("bm25", path, "--json"))["documents"] == 1
    assert ids(answer(path, QUERY, "--hybrid")) == ["en"]


# -- fusing ------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "a.run").write_text("1 Q0 x 1 9 a\n1 Q0 y 2 5 a\n1 Q0 z 3 1 a\n2 Q0 x 1 1 a\n")
    (tmp_path / "b.run").write_text("1 Q0 z 1 0.4 b\n1 Q0 w 2 0.2 b\n")
    return tmp_path / "a.run", tmp_path / "b.run"


def test_fused_runs_are_a_run(runs):
    assert done("fuse", *runs).splitlines() == [
        f"1 Q0 z 1 {1 / 63 + 1 / 61!r} fused",
        f"1 Q0 x 2 {1 / 61!r} fused",
        f"1 Q0 y 3 {1 / 62!r} fused",
        f"1 Q0 w 4 {1 / 62!r} fused",
        f"2 Q0 x 1 {1 / 61!r} fused",
    ]
    lines = done("fuse", *runs, "--method", "minmax", "--weights", "1,2", "-k", "2", "--run-tag", "both").splitlines()
    assert lines == ["1 Q0 z 1 2.0 both", "1 Q0 x 2 1.0 both", "2 Q0 x 1 1.0 both"]
    assert done("fuse", *runs, "--rank-constant", "0", "-k", "1").splitlines()[0] == f"1 Q0 z 1 {1 / 3 + 1!r} fused"


def test_runs_that_cannot_be_fused_are_told(runs, tmp_path):
    assert run("fuse", *runs, "--weights", "1,a").exit_code == 2
    result = run("fuse", *runs, "--weights", "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 weights for 2 runs" in result.stderr
    (tmp_path / "bad.run").write_text("1 Q0 x 1\n")
    assert "bad.run:1: " in run("fuse", runs[0], tmp_path / "bad.run").stderr
