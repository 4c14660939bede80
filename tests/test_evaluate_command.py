"""`polylex evaluate` and `polylex diagnose`, inside this process and on two documents."""

import json

import pytest
from click.testing import CliRunner

from polylex import models
from polylex.cli import program

pytest.importorskip("ir_measures")
DOCUMENTS = [
    {"_id": "en-1", "text": "Men and women of full age have the right to marry.", "lang": "en"},
    {"_id": "fr-1", "text": "Toute personne a droit à l'éducation.", "lang": "fr"},
]
QUERIES = [
    {"_id": "q1", "text": "Men and women have the right to marry", "lang": "en"},
    {"_id": "q2", "text": "Toute personne a droit à l'éducation", "lang": "fr"},
    {"_id": "q3", "text": "nobody judged this", "lang": "de"},
]


@pytest.fixture(scope="module", autouse=True)
def one_model(encoder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", lambda *where, **how: encoder)
        yield


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "tiny"
    (root / "qrels").mkdir(parents=True)
    for name, records in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (root / f"{name}.jsonl").write_text(text, "utf-8")
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ten-1\t1\nq2\tfr-1\t1\n")
    return root


def run(*arguments):
    return CliRunner().invoke(program, [str(each) for each in arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_model_is_measured_and_a_second_run_encodes_nothing(data, tmp_path):
    command = ("evaluate", "polylex-mini", data, "--cache", tmp_path / "cache", "--json")
    first, second = json.loads(done(*command)), json.loads(done(*command, "--measures", "RR@10,P(rel=1)@1"))
    system = first["collections"]["tiny"]["systems"]["polylex-mini"]
    assert system["mean"] == {"nDCG@10": 1.0, "R@100": 1.0}  # each query is nearly the text of its document
    assert system["texts_encoded_now"] == 5
    assert (system["absent_languages"], system["macro"]["nDCG@10"]) == (["de"], pytest.approx(2 / 3))
    assert system["matrix"]["nDCG@10"]["values"] == [[1.0, None], [None, 1.0]]
    again = second["collections"]["tiny"]["systems"]["polylex-mini"]
    assert again["mean"] == {"RR@10": 1.0, "P(rel=1)@1": 1.0}
    assert again["texts_encoded_now"] == 0


def test_results_are_written_and_not_written_over(data, tmp_path):
    out = tmp_path / "out"
    command = ("evaluate", "polylex-mini", data, "--no-cache", "--prune", "top_k=4,8", "--out", out)
    printed = done(*command)
    assert "polylex-mini+top_k=8" in printed
    assert str(out / "report.html") in printed
    assert {path.name for path in out.iterdir()} == {"report.html", "report.md", "results.json", "per-query.tsv",
                                                     "runs", "plots"}  # fmt: skip
    refused = run(*command)
    assert refused.exit_code == 1
    assert "holds results already" in refused.stderr
    done(*command, "--overwrite")


def test_a_run_is_scored_against_qrels_alone_and_compared(data, tmp_path):
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q1 0 en-1 1\nq2 0 fr-1 1\n")
    for name, document in (("new", "en-1"), ("old", "fr-1")):
        (tmp_path / f"{name}.run").write_text(f"q1 Q0 {document} 1 1.0 t\n")
    command = ("evaluate", tmp_path / "new.run", qrels, "--against", f"b={tmp_path / 'old.run'}")
    found = json.loads(done(*command, "--json"))
    (comparison, _) = found["collections"]["qrels"]["comparisons"]
    assert (comparison["second"], comparison["difference"]) == ("b", 0.5)
    assert found["collections"]["qrels"]["systems"]["new"]["missing_queries"] == ["q2"]
    printed = done(*command)
    assert "new: 1 queries without a hit, which score 0" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prune", "heavy=3"), "expected mass=SHARE"),
        (("--prune", "mass=most"), "'most' is no number"),
        (("--prune", "mass=2"), "mass must be in"),
        (("--measures", "nDGC@10"), "no measure 'nDGC@10'"),
        (("--against", "nowhere.run"), "nowhere.run"),
        (("--split", "dev"), "dev.tsv"),
        (("--no-documents",), "without its documents"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_1(data, arguments, message):
    result = run("evaluate", "polylex-mini", data, "--no-cache", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_run_cannot_be_pruned_or_diagnosed(data, tmp_path):
    path = tmp_path / "a.run"
    path.write_text("q1 Q0 en-1 1 1.0 t\n")
    assert "is a run, which cannot be pruned" in run("evaluate", path, data, "--prune", "curve").stderr
    assert "not a run" in run("diagnose", path, data).stderr


def test_unknown_ids_stop_with_their_line_or_are_counted(data):
    with (data / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\tgone\t1\n")
    assert "test.tsv:4: no document 'gone'" in run("evaluate", "polylex-mini", data, "--no-cache").stderr
    result = run("evaluate", "polylex-mini", data, "--no-cache", "--unknown-ids", "keep", "--json")
    assert "1 judgment of ids that are not there" in result.stderr
    found = json.loads(result.stdout)["collections"]["tiny"]
    assert found["unknown_judgments"] == 1
    assert found["systems"]["polylex-mini"]["mean"]["R@100"] == pytest.approx((0.5 + 1) / 2)


def test_diagnose_counts_by_language_and_shows_examples(data):
    (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tfr-1\t1\nq2\tfr-1\t1\n")
    found = json.loads(done("diagnose", "polylex-mini", data, "-k", "1", "--no-cache", "--json"))
    assert (found["queries"], found["failed"]) == (2, 1)
    assert found["by_language"]["en"]["failed"] == 1
    assert found["failures"][0]["outranked_by"] == "en-1"
    printed = done("diagnose", "polylex-mini", data, "-k", "1", "--no-cache")
    assert "1 of 2 queries (50%) have no relevant document among 1 hits" in printed
    assert "Men and women have the right to marry" in printed
    assert "en-1: score" in printed


def test_an_index_is_evaluated_without_documents(data, tmp_path):
    index = tmp_path / "tiny.plx"
    done("index", data, "--out", index, "-q")
    found = json.loads(done("evaluate", index, data, "--no-documents", "--json"))["collections"]["tiny"]
    assert found["documents"] is None
    assert found["systems"]["tiny.plx"]["mean"]["nDCG@10"] == 1.0
    assert found["systems"]["tiny.plx"]["matrix"] == {}
