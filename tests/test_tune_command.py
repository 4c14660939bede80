import json
from functools import cache

import pytest
from click.testing import CliRunner

from polylex import models
from polylex.cli import program
from polylex.demo import load_udhr
from polylex.index import Index

DOCUMENTS = load_udhr(["de", "en", "es"], preamble=False)
QUERIES = load_udhr(["fr"], preamble=False)


def run(*arguments):
    return CliRunner().invoke(program, [str(each) for each in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module", autouse=True)
def one_model():
    """Load the bundled model once for all runs inside this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", cache(models.load))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An index, its vectors, queries and judgments: the same article in any language is relevant."""
    folder = tmp_path_factory.mktemp("tune")
    records = [json.dumps({**dict(each.fields), "id": each.id}, ensure_ascii=False) for each in DOCUMENTS]
    (folder / "documents.jsonl").write_text("\n".join(records), "utf-8")
    lines = [{"id": each.id, "text": " ".join(each.text.split()[:12])} for each in QUERIES]
    (folder / "queries.jsonl").write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    pairs = [(query.id, f"{tag}-{query.fields['article']}") for query in QUERIES for tag in ("de", "en", "es", "xx")]
    (folder / "qrels.tsv").write_text("".join(f"{query} 0 {document} 1\n" for query, document in pairs), "utf-8")
    done("index", folder / "documents.jsonl", "--out", folder / "index", "-q")
    done("encode", folder / "documents.jsonl", "--out", folder / "vectors", "-q")
    return folder


def test_the_choice_is_written_as_it_was_predicted(files, tmp_path):
    out = tmp_path / "small"
    answer = json.loads(
        done(
            *("tune", files / "index", "--queries", files / "queries.jsonl", "--qrels", files / "qrels.tsv"),
            *("--target", "terms<=60", "--target", "ndcg>=0.1", "--apply", out, "--json"),
        )
    )
    choice = answer["choice"]
    assert answer["targets"] == ["terms<=60", "ndcg>=0.1"]
    assert answer["judgments"] == "given"
    assert choice["terms_per_document"] <= 60
    assert answer["applied"]["path"] == str(out)
    with Index.open(out) as pruned:
        info = pruned.info()
        assert (info.documents, info.postings) == (len(DOCUMENTS), choice["postings"])
        assert abs(info.bytes - choice["bytes"]) <= 8192  # a page of SQLite, as the settings are longer
        assert info.settings["pruning"] == choice["rule"]
        assert pruned.document("de-3").fields["lang"] == "de"
        assert pruned.check() == []


def test_labels_have_rules_of_their_own_in_the_pruned_index(files, tmp_path):
    out = tmp_path / "small"
    arguments = ("tune", files / "index", "--queries", files / "queries.jsonl", "--qrels", files / "qrels.tsv")
    answer = json.loads(done(*arguments, "--by", "lang", "--target", "terms<=150", "--apply", out, "--json"))
    by_label = [each for each in answer["candidates"] if "labels" in each["rule"]]
    assert by_label
    assert all(set(each["rule"]["labels"]) == {"de", "en", "es"} for each in by_label)
    with Index.open(out) as pruned:
        assert pruned.info().postings == answer["choice"]["postings"]


def test_the_table_marks_the_choice_and_says_what_pseudo_judgments_mean(files, tmp_path):
    result = run(
        *("tune", files / "index", "--queries", files / "queries.jsonl", "--target", "terms<=60"),
        *("--plot", tmp_path / "pareto.svg"),
    )
    assert result.exit_code == 0, result.stderr
    assert "no --qrels" in result.stderr and "likeness" in result.stderr
    (chosen,) = (line for line in result.stdout.splitlines() if line.startswith(("► ", "> ")))
    assert chosen.split("  ")[0][2:] in result.stdout.split("\n\n")[-1]
    assert "ms predicted" in result.stdout and "ms measured on" in result.stdout
    assert "all" in result.stdout
    picture = (tmp_path / "pareto.svg").read_text("utf-8")
    assert picture.startswith("<svg") and "terms per document" in picture and "top_k" in picture


def test_without_a_target_the_front_is_shown_and_nothing_chosen(files):
    text = done("tune", files / "index", "--queries", files / "queries.jsonl", "--markdown", "-q")
    head, rule, *rows = text.splitlines()
    assert head.startswith("| rule | terms | size | ms | kept | held out |")
    assert set(rule) <= set("|- ")
    assert rows and "►" not in text


def test_a_file_of_vectors_is_tuned_and_pruned(files, tmp_path):
    from polylex.storage import load_vectors

    out = tmp_path / "small"
    arguments = ("tune", files / "vectors", "--queries", files / "queries.jsonl", "--qrels", files / "qrels.tsv")
    answer = json.loads(done(*arguments, "--target", "ndcg>=0.1", "--apply", out, "--json"))
    vectors, ids = load_vectors(out)
    assert vectors.nnz == answer["choice"]["postings"]
    assert ids == [each.id for each in DOCUMENTS]
    assert abs(answer["choice"]["bytes"] - answer["applied"]["bytes"]) <= 16


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--target", "bytes<=1kB"), 1, "no pruning meets bytes<=1,000: bytes is at least"),
        (("--target", "speed<=1"), 1, "no target 'speed<=1'"),
        (("--apply", "out"), 2, "--apply needs a --target"),
        (("--target", "terms<=9", "--by", "nothing"), 1, "no document has a field 'nothing'"),
        (("--target", "terms<=9", "--apply", "INDEX"), 1, "cannot be brought back"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(files, arguments, code, message):
    before = sorted(files.iterdir())
    arguments = [files / "index" if each == "INDEX" else each for each in arguments]
    result = run("tune", files / "index", "--queries", files / "queries.jsonl", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert sorted(files.iterdir()) == before


def test_a_copy_that_is_there_is_not_replaced_unasked(files, tmp_path):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "file").write_text("mine")
    common = ("--queries", files / "queries.jsonl", "--target", "terms<=60")
    assert "--overwrite" in run("tune", files / "index", *common, "--apply", out).stderr
    assert run("tune", files / "vectors", *common, "--apply", out / "file").exit_code == 1
    assert (out / "file").read_text() == "mine"
    assert "fields of documents" in run("tune", files / "vectors", *common, "--by", "lang").stderr
