import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from polylex import __version__, models
from polylex.cli import program
from polylex.cli.demo import cache_folder
from polylex.cli.highlight import Mark, document_marks, query_marks, windows, wrapped
from polylex.cli.index import expected
from polylex.cli.terminal import Signs, Ticker, flat, show_bytes, show_rate, show_seconds
from polylex.cli.verb import Verb
from polylex.explanation import Match, Span

VERBS = [verb for verb in program.commands.values() if isinstance(verb, Verb)]
DOCUMENTS = [
    {"id": "en", "lang": "en", "title": "Marriage", "text": "Men and women of full age have the right to marry."},
    {"id": "de", "lang": "de", "title": "Ehe", "text": "Männer und Frauen haben das Recht zu heiraten."},
    {"id": "zh", "lang": "zh", "title": "第十六条", "text": "成年男女有权婚嫁和成立家庭。"},
    {"id": "fr", "lang": "fr", "text": "Toute personne a droit à l'éducation, qui est gratuite.", "url": "a b"},
]
# Nearly the text of one document: whatever the model, that document is the first hit.
ENGLISH = "Men and women have the right to marry"
FRENCH = "Toute personne a droit à l'éducation"


def run(*arguments, input=None, env=None):
    """Run the program inside this process."""
    return CliRunner().invoke(program, [str(each) for each in arguments], input=input, env=env)


def done(*arguments, **options):
    """What a run that must succeed printed on standard output."""
    result = run(*arguments, **options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def start(*arguments, script="from polylex.cli import main; main()", **options):
    """Start the program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUTF8": "1", **options.pop("env", {})},
        **options,
    )


@pytest.fixture(scope="module", autouse=True)
def one_model():
    """Load the bundled model once for all runs inside this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", cache(models.load))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in DOCUMENTS), "utf-8")
    return path


@pytest.fixture(scope="module")
def index(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "a.plx"
    done("index", corpus, "--out", path, "-q")
    return path


# -- help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_help_of_a_verb_names_arguments_output_examples_and_exit_codes(verb):
    text = done(verb.name, "--help")
    for heading in ("Usage: polylex", "Arguments:", "Options:", "Prints:", "Examples:", "Exit codes: 0 done, 1 bad"):
        assert heading in text.replace("Usage: program", "Usage: polylex")
    for parameter in verb.params:
        assert getattr(parameter, "about", None) or getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize(
    "line",
    [line for verb in VERBS for line in verb.examples if "polylex" in line],
)
def test_every_example_of_a_help_page_is_a_command_line_that_parses(line):
    command = re.split(r"\s{3,}| [|>] | \|\| ", line[line.index("polylex ") :])[0]
    _, name, *arguments = shlex.split(command)
    verb = program.commands[name]
    context = verb.make_context(name, arguments, resilient_parsing=False)
    assert isinstance(context, click.Context)


def test_every_verb_and_every_option_stands_in_the_documentation():
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text("utf-8")
    for verb in VERBS:
        section = page.split(f"\n## polylex {verb.name}\n")[1].split("\n## ")[0]
        for parameter in verb.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("quiet", "verbose"):
                assert f"`{parameter.opts[-1]}" in section, (verb.name, parameter.opts)


def test_the_version_is_that_of_the_package():
    assert done("--version") == f"polylex {__version__}\n"


# -- exit codes --------------------------------------------------------------------------------------


def test_a_wrong_option_is_a_usage_error_with_exit_code_2(index):
    assert run("search", index, "x", "--nope").exit_code == 2
    assert run("search", index, "x", "-k", "0").exit_code == 2
    assert run("search", index, "x", "--queries", "file").exit_code == 2
    assert run("search", index, "x", "--json", "--trec").exit_code == 2
    assert run("prune", index, "--out", "x").exit_code == 2
    assert run("encode").exit_code == 2
    assert "Did you mean" in run("serch").stderr


def test_bad_input_is_one_line_that_starts_with_the_program_and_exit_code_1(tmp_path):
    result = run("search", tmp_path / "none", "x")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"polylex: no index at \S+none; .*\n", result.stderr)


def test_a_traceback_is_shown_only_to_who_asks_for_it(tmp_path):
    assert "Traceback" not in run("info", tmp_path / "none").stderr
    result = run("info", tmp_path / "none", "-v")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_an_error_of_the_operating_system_is_one_line_too(tmp_path):
    (tmp_path / "file").write_text("x")
    result = run("encode", "--text", "x", "--out", tmp_path / "file" / "x.safetensors")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


# -- index -------------------------------------------------------------------------------------------


def test_indexing_tells_documents_terms_size_and_rate(corpus, tmp_path):
    text = done("index", corpus, "--out", tmp_path / "a.plx")
    assert text.startswith(f"Indexed 4 documents into {tmp_path / 'a.plx'}\n")
    assert "per document" in text and "documents/s" in text


def test_the_summary_for_programs_is_one_json_object(corpus, tmp_path):
    summary = json.loads(done("index", corpus, "--out", tmp_path / "a.plx", "--json", "--prune-top", "7"))
    assert (summary["documents"], summary["encoded"], summary["skipped"], summary["terms_per_document"]) == (4, 4, 0, 7)


def test_an_index_is_not_overwritten_unless_asked(corpus, index, tmp_path):
    result = run("index", corpus, "--out", index)
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert run("index", corpus, "--out", index, "--overwrite", "-q").stdout == ""


def test_a_bad_line_stops_the_run_with_file_and_line_or_is_skipped_and_counted(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "1", "text": "one"}\n{oops\n{"id": "3"}\n{"id": "4", "text": "four"}\n')
    result = run("index", path, "--out", tmp_path / "a.plx")
    assert result.exit_code == 1
    assert f"{path}:2: " in result.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bad.jsonl"]
    result = run("index", path, "--out", tmp_path / "a.plx", "--on-error", "skip", "--json")
    assert json.loads(result.stdout)["skipped"] == 2
    assert f"polylex: skipped {path}:2: " in result.stderr


def test_standard_input_is_an_input(tmp_path):
    lines = '{"key": 7, "body": "Wer darf heiraten?"}\n'
    done("index", "-", "--out", tmp_path / "a.plx", "--id-field", "key", "--text-fields", "body", "-q", input=lines)
    answer = json.loads(done("search", tmp_path / "a.plx", "marriage", "--json"))
    assert [(hit["id"], hit["fields"]["body"]) for hit in answer["hits"]] == [("7", "Wer darf heiraten?")]


def test_the_number_of_documents_is_told_beforehand_where_that_is_cheap(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n{}\n{}")
    (tmp_path / "b.csv").write_text("id,text\n")
    assert expected([str(tmp_path / "a.jsonl")], None) == 3
    assert expected([str(tmp_path / "b.csv")], None) is None
    assert expected(["-"], None) is None


# A stand-in for the model: slow where the test wants it, and it tells how much it encoded.
SLOW = """
    import os, signal, sys, time
    import polylex.models, polylex.retriever
    from polylex.cli import main
    from polylex.vectors import SparseVectors
    from polylex.vocab import Vocab

    class Slow:
        name, weights_id, source, encoded = "slow", "", "slow", 0
        vocab = Vocab(["word"], [])

        def encode(self, texts, *, kind, on_text):
            if self.encoded == int(os.environ["STOP_AT"]):
                print("stopped", flush=True)
                time.sleep(60)
            self.encoded += len(texts)
            return SparseVectors.from_dicts([{"e_word": 1.0}] * len(texts), self.vocab)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
    polylex.retriever.CHUNK = 10
    encoder = Slow()
    polylex.models.load = lambda *_, **__: encoder
    try:
        main()
    finally:
        print("encoded", encoder.encoded, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupted_run_says_what_is_safe_and_the_same_command_goes_on(tmp_path):
    path, out = tmp_path / "many.jsonl", tmp_path / "many.plx"
    path.write_text("".join(f'{{"id": "{i}", "text": "word"}}\n' for i in range(35)))
    script = textwrap.dedent(SLOW)

    process = start("index", path, "--out", out, script=script, env={"STOP_AT": "20"})
    assert process.stdout.readline() == b"stopped\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.decode().splitlines() == [
        "polylex: interrupted; 20 documents stored safely. Run the same command again to go on from there."
    ]
    assert not out.exists()
    assert "run the same command again" in run("search", out, "word").stderr

    process = start("index", path, "--out", out, script=script, env={"STOP_AT": "-1"})
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, b"")
    assert b"Indexed 35 documents" in stdout
    assert b"20 documents stored by an interrupted run" in stdout
    assert stdout.endswith(b"encoded 15\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_a_run_interrupted_before_anything_is_stored_leaves_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "word"}\n')
    process = start(
        "index",
        tmp_path / "a.jsonl",
        "--out",
        tmp_path / "a.plx",
        script=textwrap.dedent(SLOW),
        env={"STOP_AT": "0"},
    )
    assert process.stdout.readline() == b"stopped\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"nothing is left behind" in stderr
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


# -- search ------------------------------------------------------------------------------------------


def test_a_table_shows_rank_score_id_language_and_the_text_in_its_own_script(index):
    lines = done("search", index, "¿Quién", "puede", "casarse?", "-k", "3").splitlines()
    assert {line.split()[2] for line in lines} == {"en", "de", "zh"}
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert any("成年男女有权婚嫁和成立家庭。" in line for line in lines)


def test_no_line_of_a_table_is_wider_than_the_terminal(index):
    for line in done("search", index, "marriage", env={"COLUMNS": "60"}).splitlines():
        assert sum(1 + ("\u2e80" < char < "\uff61") for char in line) <= 60


def test_json_is_one_object_a_query_with_all_fields_or_those_asked_for(index):
    answer = json.loads(done("search", index, ENGLISH, "--json", "-k", "1"))
    assert list(answer) == ["query_id", "query", "hits"]
    [hit] = answer["hits"]
    assert (hit["rank"], hit["id"], hit["fields"]) == (1, "en", DOCUMENTS[0])
    [hit] = json.loads(done("search", index, ENGLISH, "--json", "-k", "1", "--fields", "title,none"))["hits"]
    assert hit["fields"] == {"title": "Marriage"}


def test_piped_queries_are_answered_line_by_line_under_their_line_number(index):
    lines = done("search", index, "--json", "-k", "1", input=f"{ENGLISH}\n\n{FRENCH}\n").splitlines()
    answers = [json.loads(line) for line in lines]
    assert [(each["query_id"], each["hits"][0]["id"]) for each in answers] == [("1", "en"), ("3", "fr")]


def test_a_file_of_queries_becomes_a_trec_run(index, tmp_path):
    (tmp_path / "queries.tsv").write_text(f"q1\t{ENGLISH}\nq2\t{FRENCH}\n", "utf-8")
    run_lines = done("search", index, "--queries", tmp_path / "queries.tsv", "--trec", "-k", "2", "--run-tag", "mini")
    columns = [line.split(" ") for line in run_lines.splitlines()]
    assert [(c[0], c[1], c[3], c[5]) for c in columns] == [
        ("q1", "Q0", "1", "mini"),
        ("q1", "Q0", "2", "mini"),
        ("q2", "Q0", "1", "mini"),
        ("q2", "Q0", "2", "mini"),
    ]
    assert columns[0][2] == "en" and columns[2][2] == "fr"
    assert float(columns[0][4]) >= float(columns[1][4])


def test_a_trec_run_refuses_a_tag_that_would_break_its_columns(index):
    result = run("search", index, "marriage", "--trec", "--run-tag", "my run")
    assert result.exit_code == 1
    assert "'my run'" in result.stderr


def test_a_query_without_a_term_finds_nothing_and_that_is_no_error(index):
    assert "no document shares a term" in done("search", index, " ")
    assert json.loads(done("search", index, " ", "--json"))["hits"] == []


def test_explained_hits_name_the_words_that_met(index):
    text = done("search", index, "heiraten", "-k", "1", "--explain")
    assert "heiraten ~ " in text
    [hit] = json.loads(done("search", index, "heiraten", "-k", "1", "--explain", "--json"))["hits"]
    assert hit["matches"][0]["query_words"][0]["text"] == "heiraten"


def test_few_terms_of_a_query_still_search(index):
    [hit] = json.loads(done("search", index, ENGLISH, "--json", "--explain", "--prune-top", "1", "-k", "1"))["hits"]
    assert hit["score"] < json.loads(done("search", index, ENGLISH, "--json"))["hits"][0]["score"]


def test_searching_imports_no_torch(index):
    script = (
        "import sys; from polylex.cli import program; program(standalone_mode=False); print('torch' in sys.modules)"
    )
    process = start("search", index, "marriage", "--json", "--explain", script=script)
    stdout, _ = process.communicate(timeout=60)
    assert stdout.decode().splitlines()[-1] == "False"


def test_help_imports_neither_numpy_nor_rich_nor_the_runtime():
    script = (
        "import sys; from polylex.cli import program; program(['--help'], standalone_mode=False); "
        "print({'numpy', 'rich', 'onnxruntime', 'tokenizers'} & set(sys.modules))"
    )
    stdout, _ = start(script=script).communicate(timeout=60)
    assert stdout.decode().splitlines()[-1] == "set()"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_a_reader_that_leaves_ends_the_program_quietly(index):
    process = start("search", index, "--json", stdin=subprocess.PIPE)
    process.stdin.write(b"marriage\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["query_id"] == "1"  # answered before the input ends
    process.stdout.close()
    process.stdin.write(b"marriage\n" * 50)
    process.stdin.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141


def test_an_output_that_is_not_unicode_gets_json_in_ascii_and_tables_with_escapes(index):
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    stdout, _ = start("search", index, "marriage", "--json", env=ascii_only).communicate(timeout=60)
    assert "成年男女" in json.dumps(json.loads(stdout.decode("ascii")), ensure_ascii=False)
    stdout, stderr = start("explain", index, "marriage", "zh", env=ascii_only).communicate(timeout=60)
    assert stderr == b""
    assert "###" in stdout.decode("ascii") and "\\u5a5a" in stdout.decode("ascii")


# -- explain -----------------------------------------------------------------------------------------


def test_an_explanation_shows_terms_weights_and_the_words_of_both_sides(index):
    text = done("explain", index, "¿Quién puede casarse?", "en")
    assert re.search(r"^ *query +\S*Quién\S* .*\[casarse\]\d", text)
    row = next(line for line in text.splitlines() if line.startswith("marriage "))
    assert re.fullmatch(
        r"marriage +\d\.\d\d × \d\.\d\d +\d\.\d\d +\d+% █+[▏▎▍▌▋▊▉]? +casarse \d +(marry|Marriage)", row
    )


def test_an_explanation_in_json_adds_up_to_its_score(index):
    found = json.loads(done("explain", index, "¿Quién puede casarse?", "en", "--json", "--limit", "1000"))
    assert sum(match["product"] for match in found["matches"]) == pytest.approx(found["score"])
    assert found["document"].startswith("Marriage Men and women")


def test_an_unknown_document_is_bad_input(index):
    result = run("explain", index, "x", "nope")
    assert result.exit_code == 1
    assert "nope" in result.stderr


def test_colours_are_for_terminals_and_never_against_the_users_will(index):
    arguments = ("explain", index, "¿Quién puede casarse?", "en")
    assert "\x1b[" not in done(*arguments)
    assert "\x1b[1;36mcasarse" in done(*arguments, env={"FORCE_COLOR": "1", "TERM": "xterm"})
    plain = done(*arguments, env={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"})
    assert "[casarse]1" in re.sub("\x1b\\[[0-9;]*m", "", plain)
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", plain)


def match(term, query_words, document_words, share=0.5):
    def spans(words):
        return tuple(Span(start, start + len(text), text) for start, text in words)

    return Match(term, "pivot", 1.0, 1.0, 1.0, share, spans(query_words), spans(document_words))


def test_a_word_of_the_query_and_all_that_it_met_are_one_group():
    matches = [
        match("e_marriage", [(4, "marry")], [(10, "Ehe")]),
        match("e_who", [(0, "who")], [(0, "Wer")]),
        match("e_wife", [(4, "marry")], [(20, "Frau")]),
        match("e_keen", [], [(30, "x")]),  # the query as a whole: no word to connect
    ]
    assert [(mark.start, mark.group) for mark in query_marks(matches)] == [(0, 2), (4, 1)]
    assert [(mark.start, mark.group) for mark in document_marks(matches)] == [(0, 2), (10, 1), (20, 1)]


def test_the_heaviest_term_decides_where_two_groups_meet_in_one_word():
    matches = [match("e_a", [(0, "one")], [(5, "both")]), match("e_b", [(9, "two")], [(5, "both")])]
    assert [(mark.start, mark.group) for mark in document_marks(matches)] == [(5, 1)]


def test_of_a_long_text_the_surroundings_of_its_marks_are_shown():
    text = "word " * 400
    assert windows(text, [], 2000) == [(0, 2000)]
    assert windows(text, [], 100) == [(0, 99)]
    [(start, end)] = windows(text, [Mark(1000, 1004, 1, 0)], 300)
    assert start <= 940 + 20 and start > 900 and end >= 1044 and text[start] == "w" and text[end] == " "
    assert windows(text, [Mark(0, 4, 1, 0), Mark(1500, 1504, 1, 9)], 100) == [(0, 64)]  # the lighter one has no room


def test_lines_break_at_spaces_and_between_wide_characters():
    from rich.text import Text

    assert wrapped(Text("aa bb cc"), 5).plain == "aa bb\ncc"
    assert wrapped(Text("第十六条"), 4).plain == "第十\n六条"
    assert wrapped(Text("a 第十六条"), 6).plain == "a 第十\n六条"
    assert wrapped(Text("abcdefgh"), 3).plain == "abc\ndef\ngh"


def test_a_document_cannot_steer_the_terminal(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": "1", "lang": "\x1b[2J", "text": "word \x1b]0;title\x07 \x9b31m"})
    )
    done("index", tmp_path / "a.jsonl", "--out", tmp_path / "a.plx", "-q")
    for arguments in (("search", tmp_path / "a.plx", "word"), ("explain", tmp_path / "a.plx", "word", "1")):
        assert not set("\x1b\x07\x9b") & set(done(*arguments))


def test_flattening_keeps_every_position():
    assert flat("a\nb\t\x1b[31m第") == "a b  [31m第"


# -- encode, prune, info -----------------------------------------------------------------------------


def test_a_text_is_shown_as_a_table_of_terms_and_words():
    text = done("encode", "--text", "¿Quién puede casarse?", "--query", "--top-k", "30")
    assert re.search(r"^marriage +\d\.\d\d █+\S* +casarse$", text, re.MULTILINE)
    assert "and 10 lighter terms" in text


def test_encoded_json_names_the_heaviest_terms_first(corpus):
    lines = [json.loads(line) for line in done("encode", corpus, "--json", "--top-k", "3").splitlines()]
    assert [line["id"] for line in lines] == ["en", "de", "zh", "fr"]
    for line in lines:
        weights = list(line["vector"].values())
        assert len(weights) == 3 and weights == sorted(weights, reverse=True)
        assert all(name.startswith(("e_", "m_")) for name in line["vector"])


def test_a_file_of_vectors_can_be_described_and_pruned(corpus, tmp_path):
    out, small = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    done("encode", corpus, "--out", out)
    facts = json.loads(done("info", out, "--json"))
    assert (facts["kind"], facts["vectors"], facts["ids"]) == ("vectors", 4, True)
    result = json.loads(done("prune", out, "--out", small, "--top-k", "5", "--json"))
    assert result["in"]["terms_mean"] == facts["terms_per_vector"]
    assert (result["out"]["documents"], result["out"]["terms_mean"], result["out"]["terms_p95"]) == (4, 5, 5)
    assert result["out"]["bytes"] == small.stat().st_size < result["in"]["bytes"] == out.stat().st_size
    assert run("prune", out, "--out", small, "--top-k", "5").exit_code == 1  # it is there
    views = json.loads(
        done("prune", out, "--out", small, "--pivot-top-k", "2", "--source-top-k", "1", "--json", "--overwrite")
    )
    assert views["out"]["terms_mean"] == 3


def test_queries_are_encoded_from_a_file_of_queries(tmp_path):
    (tmp_path / "queries.tsv").write_text("q1\tmarriage\n")
    line = json.loads(done("encode", tmp_path / "queries.tsv", "--query", "--json", "--top-k", "1"))
    assert line["id"] == "q1"


def test_a_pruned_index_searches_and_says_how_it_was_pruned(index, tmp_path):
    out = tmp_path / "small.plx"
    text = done("prune", index, "--mass", "0.5", "--out", out)
    assert "Pruned 4 documents" in text and "95th percentile" in text
    assert json.loads(done("search", out, FRENCH, "--json"))["hits"][0]["id"] == "fr"
    assert json.loads(done("info", out, "--json"))["settings"]["pruning"] == {"mass": 0.5}
    assert run("prune", index, "--mass", "0.5", "--out", index, "--overwrite").exit_code == 1  # nothing is lost
    assert json.loads(done("info", index, "--json"))["settings"]["pruning"] is None


def test_info_describes_the_installation_a_model_and_an_index(index):
    facts = json.loads(done("info", "--json"))
    assert facts["polylex"] == __version__
    assert "polylex-mini (default)" in facts["models"]
    assert json.loads(done("info", "polylex-mini", "--json"))["kind"] == "model"
    facts = json.loads(done("info", index, "--json"))
    assert (facts["kind"], facts["documents"], facts["model"]) == ("index", 4, "polylex-mini")
    assert "documents" in done("info", index)


def test_a_sound_index_passes_and_a_flipped_bit_is_found(index, corpus, tmp_path):
    assert "is sound" in done("check", index)
    out = tmp_path / "a.plx"
    done("index", corpus, "--out", out, "-q")
    [segment] = out.glob("segment-*")
    data = bytearray(segment.read_bytes())
    data[-3] ^= 4
    segment.write_bytes(data)
    result = run("check", out)
    assert result.exit_code == 1
    assert segment.name in result.stdout
    assert json.loads(run("check", out, "--json").stdout)["sound"] is False


# -- demo --------------------------------------------------------------------------------------------


def test_the_demo_answers_across_languages_and_keeps_its_index(tmp_path):
    environment = {"POLYLEX_CACHE": str(tmp_path / "cache")}
    arguments = ("demo", "¿Quién puede casarse?", "--languages", "en,de", "-k", "2")
    first = run(*arguments, "--lang", "de", env=environment)
    assert first.exit_code == 0, first.stderr
    assert "encoding the Universal Declaration of Human Rights" in first.stderr
    assert {line.split()[2] for line in first.stdout.splitlines()[1:3]} == {"en-16", "de-16"}
    assert "Why en-16 matched" in first.stdout
    again = run(*arguments, "--lang", "de", "--json", env=environment)
    assert again.stderr == ""  # nothing was encoded
    assert json.loads(again.stdout)["explanation"]["document_id"] == "en-16"
    sample = json.loads(done("demo", "--lang", "en", "--languages", "de,en", "--json", env=environment))
    assert (sample["lang"], sample["article"], sample["hits"][0]["fields"]["article"]) == ("en", 16, 16)


def test_the_demo_refuses_a_language_it_has_no_question_in():
    result = run("demo", "--lang", "xx")
    assert result.exit_code == 1
    assert "'xx'" in result.stderr


def test_caches_stand_where_the_operating_system_wants_them():
    home = Path("/home/ada")
    assert cache_folder({"POLYLEX_CACHE": "/x"}, "linux", home) == Path("/x")
    assert cache_folder({}, "linux", home) == home / ".cache" / "polylex"
    assert cache_folder({"XDG_CACHE_HOME": "/c"}, "linux", home) == Path("/c/polylex")
    assert cache_folder({}, "darwin", home) == home / "Library" / "Caches" / "polylex"
    assert cache_folder({"LOCALAPPDATA": "/l"}, "win32", home) == Path("/l/polylex/cache")


# -- numbers -----------------------------------------------------------------------------------------


def test_numbers_have_units_that_fit():
    assert [show_bytes(size) for size in (0, 999, 1000, 14_200_000, 5e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "14.2 MB",
        "5.0 TB",
    ]
    assert [show_seconds(s) for s in (0.0042, 0.42, 3.21, 192, 7260)] == [
        "4.2 ms",
        "420 ms",
        "3.2 s",
        "3 min 12 s",
        "2 h 1 min",
    ]
    assert [show_rate(rate) for rate in (0.84, 41.6, 1234.5)] == ["0.8", "42", "1,234"]


def test_a_log_gets_a_line_of_progress_a_minute(capsys):
    now = iter([0.0, 0.0, 59.0, 60.0, 119.0, 120.0])
    ticker = Ticker("Indexing", 5000, "documents", clock=lambda: next(now))
    ticker.start_at(1000)
    for _ in range(4):
        ticker.advance(600)
    assert capsys.readouterr().err.splitlines() == [
        "polylex: indexing: 2,200 of 5,000 documents, 20/s",
        "polylex: indexing: 3,400 of 5,000 documents, 20/s",
    ]


def test_a_bar_grows_by_eighths_and_is_never_empty():
    assert [Signs(True).bar(part) for part in (0, 0.5, 1)] == ["▏", "████", "████████"]
    assert [Signs(False).bar(part) for part in (0, 0.5, 1)] == ["#", "####", "########"]
