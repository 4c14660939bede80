import json
import sqlite3
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner
from faulty_proxy import FAULTS, Proxy
from http_engine import HttpEngine, Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from word_encoder import WordEncoder

from polylex import models
from polylex import sync as syncs
from polylex.cli import program
from polylex.corpus import as_document
from polylex.engine import Patience, Space
from polylex.engines.address import KEY, open_engine
from polylex.errors import BadInput, EngineError, EngineUnreachable, VocabMismatch
from polylex.ledger import Ledger
from polylex.prune import Pruning
from polylex.sync import Changes, Sync

WORDS = "who may marry law right work"
FIRST = {"a": "who", "b": "may marry", "c": "law", "d": "work"}
SECOND = {"b": "may marry", "c": "law right", "d": "work", "e": "who who"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(syncs, "SIZE", 2)


@pytest.fixture
def server():
    with Server() as found:
        yield found


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "l.sqlite", "c") as found:
        yield found


def documents(texts):
    return [as_document({"id": id, "text": text}) for id, text in texts.items()]


def patient(attempts=4):
    waits = []
    return Patience(attempts, 0.25, waits.append), waits


def work(port, ledger, *, encoder=None, patience=None, **options):
    encoder = encoder or WordEncoder(WORDS)
    return Sync(HttpEngine(port, Space(encoder.vocab)), encoder, ledger, patience=patience or patient()[0], **options)


def run_sync(port, ledger, texts, **options):
    sync = work(port, ledger, **options)
    changes = sync.compare(documents(texts))
    return sync.apply(changes, documents(texts))


def state(texts):
    """What the engine must have."""
    vectors = WordEncoder(WORDS).encode(list(texts.values()))
    rows = zip(texts.items(), map(vectors.row, range(len(vectors))), strict=True)
    return {
        id: {"terms": terms.tolist(), "weights": weights.tolist(), "fields": {"id": id, "text": text}}
        for (id, text), (terms, weights) in rows
    }


# -- what changes ------------------------------------------------------------------------------------


def test_a_collection_becomes_equal_to_the_documents_and_only_changes_are_encoded(server, ledger):
    encoder = WordEncoder(WORDS)
    first = run_sync(server.port, ledger, FIRST, encoder=encoder)
    assert (first.changes, first.pushed, encoder.encoded) == (Changes(("a", "b", "c", "d"), (), (), 0), 4, 4)
    assert server.documents == state(FIRST)
    second = run_sync(server.port, ledger, SECOND, encoder=encoder)
    assert second.changes == Changes(("e",), ("c",), ("a",), 2)
    assert (second.pushed, second.deleted, encoder.encoded) == (2, 1, 6)
    assert server.documents == state(SECOND)
    assert not run_sync(server.port, ledger, SECOND, encoder=encoder).changes
    assert server.pushes == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1}


def test_a_field_that_is_not_encoded_counts_as_a_change_too(server, ledger):
    run_sync(server.port, ledger, FIRST)
    changed = [as_document({"id": "a", "text": "who", "year": 2020}), *documents(FIRST)[1:]]
    assert work(server.port, ledger).compare(changed) == Changes((), ("a",), (), 3)


def test_what_others_removed_or_added_is_put_right(server, ledger):
    run_sync(server.port, ledger, FIRST)
    server.documents["x"] = server.documents.pop("a")
    assert run_sync(server.port, ledger, FIRST).changes == Changes(("a",), (), ("x",), 3)
    assert server.documents == state(FIRST)


def test_a_lost_ledger_costs_work_and_nothing_else(server, ledger, tmp_path):
    run_sync(server.port, ledger, FIRST)
    with Ledger(tmp_path / "new", "c") as new:
        assert run_sync(server.port, new, FIRST).changes == Changes((), ("a", "b", "c", "d"), (), 0)
    assert server.documents == state(FIRST)


def test_another_pruning_changes_every_document(server, ledger):
    run_sync(server.port, ledger, FIRST)
    run_sync(server.port, ledger, FIRST, prune=Pruning(top_k=1))
    assert {id: len(document["terms"]) for id, document in server.documents.items()} == dict.fromkeys("abcd", 1)


def test_a_collection_of_another_vocabulary_is_left_alone(server, ledger):
    run_sync(server.port, ledger, FIRST)
    with pytest.raises(VocabMismatch):
        run_sync(server.port, ledger, {}, encoder=WordEncoder("other words"))
    assert server.documents == state(FIRST)


def test_comparing_changes_nothing(server, ledger):
    run_sync(server.port, ledger, FIRST)
    assert work(server.port, ledger).compare(documents(SECOND))
    assert (server.documents, len(ledger)) == (state(FIRST), 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.sampled_from(WORDS.split()), max_size=5), max_size=5))
def test_whatever_came_before_the_collection_has_the_documents_of_the_last_run(server, tmp_path, states):
    server.documents.clear()
    (tmp_path / "any").unlink(missing_ok=True)
    with Ledger(tmp_path / "any", "c") as ledger:
        for texts in states:
            run_sync(server.port, ledger, texts)
            assert server.documents == state(texts)


# -- deletions are dangerous -------------------------------------------------------------------------


def test_too_many_deletions_are_refused_unless_they_are_allowed():
    half = Changes((), ("c",), ("a", "b"), 1)
    half.require()
    Changes((), (), ("a",), 0).require(1.0)
    Changes(("a",), (), (), 0).require(0.0)
    with pytest.raises(BadInput, match="2 of 3 documents would be deleted, more than 50%"):
        Changes((), (), ("a", "b"), 1).require()
    with pytest.raises(BadInput, match="1 of 4"):
        Changes((), (), ("a",), 3).require(0.2)


def test_nothing_is_deleted_where_a_record_could_not_be_read():
    Changes(("a",), (), (), 3).require(skipped=1)
    with pytest.raises(BadInput, match="1 records could not be read"):
        Changes((), (), ("a",), 3).require(skipped=1)


# -- faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "pass"])
@pytest.mark.parametrize("place", range(9))  # one sync makes 11 requests here: mark, refresh, ids, mark, push ...
def test_a_fault_of_any_connection_is_mended_by_trying_again(fault, place, server, ledger):
    run_sync(server.port, ledger, FIRST)
    patience, waits = patient()
    with Proxy(server.port) as proxy:
        proxy.faults += ["pass"] * place + [fault]
        report = run_sync(proxy.port, ledger, SECOND, patience=patience)
    assert fault in proxy.met
    assert waits == [0.25]
    assert (report.rejected, server.documents) == ([], state(SECOND))
    assert work(server.port, ledger).compare(documents(SECOND)) == Changes((), (), (), 4)


def test_the_pauses_double(server, ledger):
    patience, waits = patient(5)
    with Proxy(server.port) as proxy:
        proxy.faults += ["refuse", "lose", "cut"]
        run_sync(proxy.port, ledger, FIRST, patience=patience)
    assert waits == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("fault", "place"), list(product(["cut", "lose"], range(11))))
def test_a_run_that_gave_up_is_continued_by_the_next_one(fault, place, server, ledger):
    """Nothing is lost or doubled, and documents that were acknowledged before are not sent again."""
    run_sync(server.port, ledger, FIRST)
    encoder = WordEncoder(WORDS)
    with Proxy(server.port) as proxy:
        proxy.faults += ["pass"] * place + [fault] * 3
        try:
            run_sync(proxy.port, ledger, SECOND, patience=patient(3)[0], encoder=encoder)
        except EngineUnreachable:
            assert len(proxy.met) == place + 3
        else:
            assert len(proxy.met) <= place
    left = work(server.port, ledger).compare(documents(SECOND))
    known = set(SECOND) - {*left.added, *left.updated}
    before = dict(server.pushes)
    run_sync(server.port, ledger, SECOND)
    assert server.documents == state(SECOND)
    assert {"b", "d"} <= known
    assert {id: server.pushes[id] for id in known} == {id: before[id] for id in known}


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_is_busy_is_asked_again(status, server, ledger):
    server.statuses += [200, status, status]
    patience, waits = patient()
    run_sync(server.port, ledger, FIRST, patience=patience)
    assert (waits, server.documents) == ([0.25, 0.5], state(FIRST))


def test_an_engine_that_says_no_is_not_asked_again(server, ledger):
    server.statuses += [500]
    patience, waits = patient()
    with pytest.raises(EngineError, match="500"):
        run_sync(server.port, ledger, FIRST, patience=patience)
    assert waits == []


def test_documents_that_were_rejected_are_named_and_tried_again_by_the_next_run(server, ledger):
    server.refuse = {"b": [False], "c": [True], "d": [True] * 4}
    report = run_sync(server.port, ledger, FIRST)
    assert [(each.id, each.reason, each.again) for each in report.rejected] == [
        ("b", "refused", False),
        ("d", "refused", True),
    ]
    with pytest.raises(EngineError, match="2 documents were not taken, the first 'b'"):
        report.require()
    assert server.documents == {id: value for id, value in state(FIRST).items() if id in "ac"}
    assert run_sync(server.port, ledger, FIRST).changes == Changes(("b", "d"), (), (), 2)
    assert server.documents == state(FIRST)


def test_an_update_that_was_rejected_is_still_one_the_next_time(server, ledger):
    run_sync(server.port, ledger, FIRST)
    server.refuse = {"c": [False]}
    assert [each.id for each in run_sync(server.port, ledger, SECOND).rejected] == ["c"]
    assert work(server.port, ledger).compare(documents(SECOND)).updated == ("c",)
    # Back to what the engine has: the ledger does not claim to know it.
    assert work(server.port, ledger).compare(documents({**SECOND, "c": "law"})).updated == ("c",)


def test_an_engine_that_is_full_takes_the_rest_when_there_is_room(server, ledger):
    server.room = 3
    assert [(each.id, each.reason) for each in run_sync(server.port, ledger, FIRST).rejected] == [("d", "no room")]
    server.room = 4
    assert run_sync(server.port, ledger, FIRST).changes == Changes(("d",), (), (), 3)
    assert (server.documents, set(server.pushes.values())) == (state(FIRST), {1})


# -- the ledger --------------------------------------------------------------------------------------


def test_a_ledger_belongs_to_one_collection(tmp_path):
    with Ledger(tmp_path / "l", "one") as ledger:
        ledger.record([("a", b"1"), ("b", b"2")])
        ledger.forget(["a"])
    with Ledger(tmp_path / "l", "one") as ledger:
        assert (len(ledger), ledger.digest("a"), ledger.digest("b")) == (1, None, b"2")
    with pytest.raises(BadInput, match=r"ledger of 'one'.*not of 'two'"):
        Ledger(tmp_path / "l", "two")


@pytest.mark.parametrize("content", [b"no database at all, but a text of some length", None])
def test_what_is_no_ledger_is_refused(content, tmp_path):
    path = tmp_path / "folder" / "l" if content is None else tmp_path / "l"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput):
        Ledger(path, "c")


def test_a_transaction_that_fails_leaves_the_ledger_as_it_was(ledger):
    ledger.record([("a", b"1")])
    with pytest.raises(sqlite3.Error):
        ledger.record([("b", b"2"), ("c", object())])
    assert (len(ledger), ledger.digest("b")) == (1, None)


# -- addresses and the command line ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["", "milvus", "http://h:1/c", "milvus://h:1", "milvus://h:1/", "milvus://h:1/a/b", "qdrant://u:p@h:1/c", "x:/c"],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadInput, match=f"belongs into \\${KEY}"):
        open_engine(address, Space(WordEncoder(WORDS).vocab), {})


needs_edge = pytest.mark.skipif(find_spec("qdrant_edge") is None, reason="needs the extra polylex[qdrant-edge]")


@pytest.fixture(scope="module", autouse=True)
def one_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load", cache(models.load))
        yield


def run(*arguments, code=0):
    result = CliRunner().invoke(program, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result


@needs_edge
def test_the_command_line_syncs_a_folder_with_qdrant_s_core(tmp_path):
    source, address = tmp_path / "in", f"qdrant-edge:{tmp_path / 'edge'}"
    source.mkdir()
    for name in "abc":
        (source / f"{name}.txt").write_text(f"Article {name}: who may marry?")

    def sync(*more):
        told = json.loads(run("sync", source, address, "--ledger", tmp_path / "l", "--json", *more).stdout)
        return [told[name] for name in ("added", "updated", "deleted", "unchanged")]

    assert sync("--create") == [3, 0, 0, 0]
    (source / "a.txt").write_text("Article a, changed")
    (source / "b.txt").unlink()
    (source / "d.txt").write_text("Article d is new")
    assert sync("--dry-run") == sync("--dry-run") == sync() == [1, 1, 1, 1]
    assert sync("--create") == [0, 0, 0, 3]
    for path in source.iterdir():
        path.unlink()
    (source / "z.txt").write_text("Only this is left")
    result = run("sync", source, address, "--ledger", tmp_path / "l", code=1)
    assert "3 of 3 documents would be deleted" in result.stderr
    assert sync("--most-deletes", "1") == [1, 0, 3, 0]
    assert (
        "Done: 0 added, 0 updated, 0 deleted, 1 unchanged"
        in run("sync", source, address, "--ledger", tmp_path / "l").stdout
    )


def test_the_default_ledger_is_in_the_folder_for_caches(tmp_path, monkeypatch):
    from polylex.cli.sync import _ledger

    monkeypatch.setenv("POLYLEX_CACHE", str(tmp_path))
    assert _ledger("milvus://h:1/a").parent == Path(tmp_path, "ledgers")
    assert _ledger("milvus://h:1/a") != _ledger("milvus://h:1/b")
