import json

import pytest
from click.testing import CliRunner

from polylex.errors import BadInput
from polylex.train.data import Group, Pair, read_groups, read_pairs
from polylex.train.data_command import data
from polylex.train.prepare import write_rows


def run(*arguments):
    return CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "Nairobi is the capital of Kenya."}\n')
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "capital of Kenya?", "lang": "en"}\n')
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n")
    return folder


def test_parallel_text_becomes_pairs_and_pairs_become_groups(tmp_path):
    (tmp_path / "en").write_text("Good morning.\n")
    (tmp_path / "sw").write_text("Habari za asubuhi.\n")
    out = tmp_path / "pairs.jsonl"
    assert "1 pairs" in run("pairs", tmp_path / "en", tmp_path / "sw", "--language", "sw", "--out", out).output
    assert list(read_pairs(out)) == [Pair("Good morning.", "Habari za asubuhi.", "sw")]
    run("groups", out, "--out", tmp_path / "groups.jsonl")
    assert list(read_groups(tmp_path / "groups.jsonl")) == [
        Group("Habari za asubuhi.", ("Good morning.",), language="sw")
    ]


def test_a_collection_becomes_groups(tmp_path, beir):
    run("groups", beir, "--out", tmp_path / "groups.jsonl.gz")
    (group,) = read_groups(tmp_path / "groups.jsonl.gz")
    assert group == Group("capital of Kenya?", ("Nairobi is the capital of Kenya.",), language="en", source=beir.name)


def test_screening_drops_what_a_collection_holds(tmp_path, beir):
    write_rows(tmp_path / "in.jsonl", [Pair("Capital of Kenya", "mji", "sw", "s"), Pair("fine", "sawa", "sw", "s")])
    told = run("screen", tmp_path / "in.jsonl", "--against", beir, "--json", "--out", tmp_path / "out.jsonl").output
    assert json.loads(told) == {"kept": 1, "dropped": {"s": {"exact": 1}}}
    assert [pair.english for pair in read_pairs(tmp_path / "out.jsonl")] == ["fine"]
    told = run("screen", tmp_path / "in.jsonl", "--against", beir, "--without", "s", "--out", tmp_path / "out.jsonl")
    assert "s: dropped 2 source" in told.output


def test_groups_are_told_from_pairs_by_their_first_record(tmp_path, beir):
    write_rows(tmp_path / "in.jsonl", [Group("capital of kenya", ("x",)), Group("q", ("p",), ("n",))])
    run("screen", tmp_path / "in.jsonl", "--against", beir, "--out", tmp_path / "out.jsonl")
    assert [group.query for group in read_groups(tmp_path / "out.jsonl")] == ["q"]


def test_the_report_is_markdown_or_json(tmp_path):
    write_rows(tmp_path / "in.jsonl", [Pair("fine", "sawa", "sw", "news")])
    (tmp_path / "licences.json").write_text('{"news": "CC0"}')
    told = run("report", tmp_path / "in.jsonl", "--licences", tmp_path / "licences.json").output
    assert "| news | 1 |  | CC0 |" in told
    table = json.loads(run("report", tmp_path / "in.jsonl", "--json").output)
    assert table["parts"]["in.jsonl"]["licences"] == {"unstated": 1}


def test_one_teacher_and_one_only_scores(tmp_path):
    write_rows(tmp_path / "in.jsonl", [Group("q", ("p",))])
    with pytest.raises(BadInput, match=r"name one teacher: .* got 0"):
        run("score", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_that_is_not_there_is_named(tmp_path, beir):
    with pytest.raises(BadInput, match=r"nowhere\.jsonl does not exist"):
        run("screen", tmp_path / "nowhere.jsonl", "--against", beir, "--out", tmp_path / "out.jsonl")


def test_licences_must_be_an_object_of_texts(tmp_path):
    write_rows(tmp_path / "in.jsonl", [Pair("fine", "sawa")])
    (tmp_path / "licences.json").write_text("[]")
    with pytest.raises(BadInput, match="must be an object of texts"):
        run("report", tmp_path / "in.jsonl", "--licences", tmp_path / "licences.json")


@pytest.mark.parametrize("verb", ["pairs", "groups", "screen", "mine", "score", "embed", "report"])
def test_every_verb_explains_itself(verb):
    told = run(verb, "--help").output
    assert "Examples" in told and "Exit codes" in told
