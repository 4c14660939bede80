import json
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from word_encoder import WordEncoder

from polylex import job as jobs
from polylex import models
from polylex.cli import program
from polylex.corpus import read_documents
from polylex.errors import BadInput, DuplicateId, UnfinishedBuild
from polylex.harvest import Harvest
from polylex.index import Index
from polylex.job import Manifest, Plan, encode_shard
from polylex.partition import Partition, Share, Text, local_rank
from polylex.prune import Pruning
from polylex.storage import load_vectors, save_vectors
from polylex.throughput import Meter, Throughput, measure

WORDS = "who may marry law right work"
# Every third text says nothing, so that empty rows are among them.
TEXTS = [Text(f"d{n}", " ".join((WORDS.split() * 3)[n % 7 : n % 7 + n % 3])) for n in range(53)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK", 4)


def encode(folder, shard, *, texts=TEXTS, encoder=None, settings=None, **options) -> Manifest:
    partition = Partition.parse(shard)
    encoder = encoder or WordEncoder(WORDS)
    plan = Plan.make(partition, encoder, settings=settings)
    return encode_shard(folder, Share(partition, texts), plan, encoder, **options)


def encode_all(folder, of, **options):
    for number in range(of):
        encode(folder, f"{number}/{of}", **options)
    return folder


def merged(folder, path) -> bytes:
    harvest = Harvest.read([folder])
    save_vectors(path, *harvest.vectors())
    return path.read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- the partition -----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [1, 2, 3, 60])
def test_every_document_is_in_exactly_one_shard_and_shards_differ_by_one_document_at_most(of):
    shares = [[text.id for text in Share(Partition(number, of), TEXTS)] for number in range(of)]
    assert sorted(id for share in shares for id in share) == sorted(text.id for text in TEXTS)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_document_5_of_the_input_is_in_shard_1_of_4():
    assert [number for number in range(4) if Partition(number, 4).has(5)] == [1]
    assert "d5" in [text.id for text in Share(Partition.parse("1/4"), TEXTS)]


@pytest.mark.parametrize("text", ["", "3", "8/8", "-1/2", "1/0", "a/b", "1/2/3", "0x1/2", " 1/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(BadInput, match="counted from 0"):
        Partition.parse(text)


def test_the_launcher_says_which_shard_a_process_is():
    of = Partition.of_environment
    assert of({"RANK": "3", "WORLD_SIZE": "8"}) == Partition(3, 8)
    assert of({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == Partition(0, 2)
    assert of({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) == Partition(1, 2)
    assert of({"RANK": "0", "WORLD_SIZE": "1"}) is None  # alone
    assert of({"RANK": "0"}) is None
    assert local_rank({"LOCAL_RANK": "2"}) == 2
    assert local_rank({}) == 0


@pytest.mark.parametrize("rank", ["x", "-1", "2"])
def test_a_launcher_that_makes_no_sense_is_refused(rank):
    with pytest.raises(BadInput):
        Partition.of_environment({"RANK": rank, "WORLD_SIZE": "2"})


# -- shards, and all of them joined ------------------------------------------------------------------


@pytest.mark.parametrize("of", [2, 3, 8, 60])
def test_the_joined_file_is_the_same_to_the_byte_whatever_the_number_of_shards(of, tmp_path):
    one = merged(encode_all(tmp_path / "one", 1), tmp_path / "one.safetensors")
    assert merged(encode_all(tmp_path / "many", of), tmp_path / "many.safetensors") == one
    vectors, ids = load_vectors(tmp_path / "one.safetensors")
    whole = WordEncoder(WORDS).encode([text.text for text in TEXTS])
    assert ids == [text.id for text in TEXTS]
    for name in ("indptr", "terms", "weights"):
        assert np.array_equal(getattr(vectors, name), getattr(whole, name))


def test_pruning_is_applied_before_a_shard_is_written(tmp_path):
    encode(tmp_path, "0/1", prune=Pruning(top_k=1))
    assert max(np.diff(Harvest.read([tmp_path]).vectors()[0].indptr)) == 1


def test_an_input_without_a_text_makes_a_job_without_a_vector(tmp_path):
    harvest = Harvest.read([encode_all(tmp_path, 3, texts=[])])
    harvest.require()
    assert harvest.vectors()[1] == []


def test_a_block_ends_early_where_texts_are_long(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_CHARS", 10)
    texts = [Text("a", "x" * 10), Text("b", "y"), Text("c", "z"), Text("d", "x" * 99)]
    assert [block.rows for block in encode(tmp_path, "0/1", texts=texts).blocks] == [1, 3]


KILLED = """
import os, signal, sys
from pathlib import Path
from polylex import job, storage
from polylex.partition import Partition, Share
from test_job import TEXTS, WORDS
from word_encoder import WordEncoder

point, folder = int(sys.argv[1]), Path(sys.argv[2])
replace, calls = os.replace, [0]

def dying(*names):
    calls[0] += 1
    if calls[0] == point:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)

os.replace = dying
job.BLOCK = 4
encoder, partition = WordEncoder(WORDS), Partition(1, 2)
job.encode_shard(folder, Share(partition, TEXTS), job.Plan.make(partition, encoder), encoder)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("point", [1, 2, 4, 9])  # the plan, the first block, the third, the manifest
def test_a_shard_whose_process_was_killed_is_finished_by_the_same_call_as_if_nothing_had_been(point, tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(point), str(tmp_path / "killed")], cwd=Path(__file__).parent, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert Manifest.read(tmp_path / "killed" / "shard-1-of-2") is None
    encoder = WordEncoder(WORDS)
    encode(tmp_path / "killed", "1/2", encoder=encoder)
    encode(tmp_path / "whole", "1/2")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    kept = min(26, max(0, point - 2) * 4)  # the plan was the first file; what is lost is one block
    assert encoder.encoded == 26 - kept


def test_a_complete_shard_is_left_as_it_is(tmp_path):
    first = encode(tmp_path, "0/2")
    again = WordEncoder(WORDS)
    assert encode(tmp_path, "0/2", encoder=again) == first
    assert again.encoded == 0
    assert encode(tmp_path, "0/2", encoder=again, overwrite=True) == first
    assert again.encoded == 27


def test_another_plan_or_another_input_does_not_continue_a_shard(tmp_path):
    encode(tmp_path, "0/1")
    with pytest.raises(UnfinishedBuild, match="settings is"):
        encode(tmp_path, "0/1", settings={"pruning": "other"})
    (tmp_path / "shard-0-of-1" / "manifest.json").unlink()
    with pytest.raises(BadInput, match=r"block-000000.*other texts"):
        encode(tmp_path, "0/1", texts=[Text("d0", "marry"), *TEXTS[1:]])
    with pytest.raises(BadInput, match=r"block-000012.*ends before"):
        encode(tmp_path, "0/1", texts=TEXTS[:48])
    encode(tmp_path, "0/1")


# -- what is wrong with shards -----------------------------------------------------------------------


def found(*folders) -> list[tuple[str, str]]:
    return [(finding.kind, Path(finding.shard).name) for finding in Harvest.read(folders).findings]


def test_missing_and_unfinished_shards_are_named(tmp_path):
    encode_all(tmp_path, 4)
    shutil.rmtree(tmp_path / "shard-1-of-4")
    (tmp_path / "shard-2-of-4" / "manifest.json").unlink()
    assert found(tmp_path) == [("unfinished", "shard-2-of-4"), ("missing", "shard-1-of-4")]
    with pytest.raises(BadInput, match=r"shard-2-of-4 is unfinished.*shard-1-of-4 is missing"):
        Harvest.read([tmp_path]).stream()


def test_a_shard_that_is_given_twice_is_named(tmp_path):
    encode_all(tmp_path / "a", 2)
    encode(tmp_path / "b", "1/2")
    assert found(tmp_path / "a", tmp_path / "b") == [("duplicated", "shard-1-of-2")]
    assert found(tmp_path / "a" / "shard-0-of-2", tmp_path / "b") == []


@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(change, tmp_path):
    encode_all(tmp_path, 2)
    path = tmp_path / "shard-1-of-2" / "block-000001.safetensors"
    whole = path.read_bytes()
    if change == "remove":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] + (bytes([whole[-1] ^ 1]) if change == "flip" else b""))
    harvest = Harvest.read([tmp_path])
    assert [(finding.kind, finding.shard) for finding in harvest.findings] == [("damaged", "shard-1-of-2")]
    assert "block-000001.safetensors" in harvest.findings[0].text


class OtherWeights(WordEncoder):
    weights_id = "1"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"encoder": OtherWeights(WORDS)}, "weights_id is '1', there '0'"),
        ({"encoder": WordEncoder("who may")}, "vocab is"),
        ({"settings": {"pruning": "x"}}, "settings is"),
        ({"texts": [*TEXTS[:-1], Text("d52", "changed")]}, "its input has 53 texts"),
        ({"texts": TEXTS[:-1]}, "its input has 52 texts"),
    ],
)
def test_a_shard_of_another_model_or_input_is_refused_by_name(options, told, tmp_path):
    encode_all(tmp_path, 3)
    encode(tmp_path, "1/3", overwrite=True, **options)
    harvest = Harvest.read([tmp_path])
    assert [(finding.kind, Path(finding.shard).name) for finding in harvest.findings] == [
        ("mismatched", "shard-1-of-3")
    ]
    assert told in harvest.findings[0].text


def test_shards_of_another_number_are_refused(tmp_path):
    encode_all(tmp_path, 3)
    encode(tmp_path, "0/2")
    assert found(tmp_path) == [("mismatched", "shard-0-of-2")]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"documents": 1}, "damaged"),
        ({"format": "other"}, "damaged"),
        ({"version": 2}, "damaged"),
        ({"blocks": [{}]}, "damaged"),
        ({"plan": 3}, "damaged"),
        ({"total": 10}, "mismatched"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(change, kind, tmp_path):
    encode_all(tmp_path, 3)
    path = tmp_path / "shard-1-of-3" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert found(tmp_path)[0] == (kind, "shard-1-of-3")


def test_a_manifest_that_points_out_of_its_folder_is_refused(tmp_path):
    encode_all(tmp_path, 2)
    path = tmp_path / "shard-1-of-2" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["blocks"][0]["file"] = "../shard-0-of-2/block-000000.safetensors"
    path.write_text(json.dumps(manifest))
    assert found(tmp_path) == [("damaged", "shard-1-of-2")]


def test_ids_that_are_not_those_of_the_manifest_are_found_when_shards_are_joined(tmp_path):
    encode_all(tmp_path, 2)
    path = tmp_path / "shard-1-of-2" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ids": "0" * 64}))
    with pytest.raises(ValueError, match=r"shard-1-of-2 has other ids"):
        Harvest.read([tmp_path]).vectors()


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no complete shard"):
        Harvest.read([tmp_path])
    with pytest.raises(BadInput, match="no folder"):
        Harvest.read([tmp_path / "nowhere"])


# -- by files, on the command line -------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", cache(models.load))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for file, texts in (("a", TEXTS[:5]), ("b", TEXTS[5:6]), ("c", []), ("d", TEXTS[6:8])):
        lines = [json.dumps({"id": each.id, "text": f"{each.id} {each.text}", "file": file}) for each in texts]
        (folder / f"{file}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def run(*arguments, code=0, env=None):
    result = CliRunner().invoke(program, [str(each) for each in arguments], env=env)
    assert result.exit_code == code, result.output
    return result


def test_a_process_reads_only_the_files_of_its_shard(corpus):
    read = [[d.id for d in read_documents(corpus, only=Partition(n, 3, "files").has)] for n in range(3)]
    assert read == [["d0", "d1", "d2", "d3", "d4", "d6", "d7"], ["d5"], []]


@pytest.mark.parametrize("split", ["documents", "files"])
def test_shards_of_the_command_line_join_to_what_one_run_gives(split, corpus, tmp_path):
    run("encode", corpus, "--out", tmp_path / "whole.safetensors", "-q")
    for number in range(3):
        run("encode", corpus, "--shard", f"{number}/3", "--split", split, "--out", tmp_path / "job", "-q")
    told = json.loads(run("merge", tmp_path / "job", "--out", tmp_path / "joined.safetensors", "--json").stdout)
    assert (told["shards"], told["documents"], told["findings"]) == (3, 8, [])
    assert (tmp_path / "joined.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    run("merge", tmp_path / "job", "--index", tmp_path / "a.plx", "--from", corpus, "-q")
    run("index", corpus, "--out", tmp_path / "b.plx", "-q")
    with Index.open(tmp_path / "a.plx") as joined, Index.open(tmp_path / "b.plx") as whole:
        ours, theirs = joined.info(), whole.info()
        assert (ours.settings, ours.weights_id, ours.postings) == (theirs.settings, theirs.weights_id, theirs.postings)
        assert [(d.id, d.fields) for d in joined.documents()] == [(d.id, d.fields) for d in whole.documents()]


def test_two_files_with_one_id_are_refused_when_shards_are_joined(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.jsonl").write_text('{"id": "1", "text": "who"}\n')
    for number in range(2):
        run("encode", tmp_path / "in", "--shard", f"{number}/2", "--split", "files", "--out", tmp_path / "job", "-q")
    with pytest.raises(DuplicateId, match="'1'"):
        Harvest.read([tmp_path / "job"]).vectors()


def test_a_job_inside_of_its_own_input_is_refused(corpus):
    result = run("encode", corpus, "--shard", "0/2", "--out", corpus / "job", code=1)
    assert "lies in the input" in result.stderr
    assert not (corpus / "job").exists()


def test_the_launcher_decides_where_no_shard_is_given(corpus, tmp_path):
    env = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    told = json.loads(run("encode", corpus, "--out", tmp_path / "job", "--json", env=env).stdout)
    assert (told["shard"], told["of"], told["documents"], told["encoded"]) == (1, 2, 4, 4)
    assert told["texts_per_second"] > 0 < told["tokens_per_second"]
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["shard-1-of-2"]
    checked = run("merge", tmp_path / "job", "--check", code=1)
    assert "missing  shard-0-of-2" in checked.stdout


def test_other_documents_than_were_encoded_make_no_index(corpus, tmp_path):
    run("encode", corpus, "--shard", "0/1", "--out", tmp_path / "job", "-q")
    result = run("merge", tmp_path / "job", "--index", tmp_path / "a.plx", "--from", corpus / "d.jsonl", code=1)
    assert "document 'd6' where 'd0' was encoded" in result.stderr
    assert not (tmp_path / "a.plx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "x.jsonl", "--shard", "0/2", "--json"),
        ("encode", "--text", "x", "--shard", "0/2", "--out", "y"),
        ("encode", "x.jsonl", "--estimate", "5", "--out", "y"),
        ("merge", "x", "--out", "y", "--check"),
        ("merge", "x", "--out", "y", "--from", "z"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments):
    run(*arguments, code=2)


# -- how quick ---------------------------------------------------------------------------------------


def test_an_estimate_is_the_rule_of_three():
    measured = Throughput("cpu", texts=100, tokens=2_000, postings=5_000, seconds=50)
    assert (measured.texts_per_second, measured.tokens_per_second) == (2, 40)
    told = measured.estimate(7_200_000, devices=10, price=3)
    assert (told.device_hours, told.hours, told.cost) == (1000, 100, 3000)
    assert told.bytes == 7_200_000 * (50 * 8 + 8)


def test_what_is_measured_is_the_time_after_a_warm_up():
    times = iter([10.0, 12.0])
    measured = measure(WordEncoder(WORDS), ["who may", "law"] * 5, clock=lambda: next(times))
    assert (measured.texts, measured.postings, measured.seconds) == (10, 15, 2.0)
    with pytest.raises(BadInput, match="no text"):
        measure(WordEncoder(WORDS), [])


def test_a_meter_counts_what_passes():
    meter = Meter(WordEncoder(WORDS), "cpu")
    meter.encode(["who may", ""])
    meter.encode(["law"])
    assert (meter.measured().texts, meter.measured().postings) == (3, 3)
    assert meter.weights_id == "0"


def test_the_command_line_estimates(corpus):
    options = ("--estimate", 1_000_000, "--devices", 4, "--price", 2)
    told = json.loads(run("encode", corpus, *options, "--json").stdout)
    assert (told["documents"], told["sample"], told["devices"]) == (1_000_000, 8, 4)
    assert told["cost"] == pytest.approx(2 * told["device_hours"], rel=0.01)
    assert told["hours"] == pytest.approx(told["device_hours"] / 4, rel=0.01)
    assert "device hours" in run("encode", corpus, *options).stdout


def test_a_model_on_a_device_encodes_as_the_model_does(tmp_path):
    pytest.importorskip("torch")
    from tiny_milco import tiny_milco

    from polylex.models import load_on

    model = tiny_milco()
    model.save_pretrained(tmp_path / "model")
    placed = load_on(tmp_path / "model", "cpu", batch_size=2)
    texts = ["who may marry", "", "law " * 40]
    ours, theirs = placed.encode(texts), model.encode(texts, batch_size=2)
    assert np.array_equal(ours.terms, theirs.terms)
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-5)
    assert (placed.weights_id, placed.vocab.fingerprint) == (model.weights_id, model.vocab.fingerprint)
    assert Meter(placed, placed.device_name).encode(texts).nnz == ours.nnz


def test_a_device_that_is_not_there_is_named(corpus, tmp_path):
    pytest.importorskip("torch")
    result = run("encode", corpus, "--device", "cuda:99", "--out", tmp_path / "x", code=1)
    assert "cuda:99" in result.stderr
    assert os.listdir(tmp_path) == []
