import asyncio
import threading
import time

import numpy as np
import pytest
from served import DOCUMENTS, WORDS, serving
from word_encoder import WordEncoder

from polylex.errors import BadInput, VocabMismatch
from polylex.server.batching import Batcher
from polylex.server.keys import KeyFile, KeyRing
from polylex.server.problems import Problem, problem_of
from polylex.server.rates import Rates
from polylex.server.settings import Limits, Settings
from polylex.vectors import SparseVectors


class Gated(WordEncoder):
    """Encodes when it is let."""

    def __init__(self):
        super().__init__(WORDS)
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, texts, **options):
        assert self.gate.wait(20)
        return super().encode(texts, **options)


def searches(*queries):
    return [("POST", "/search", {"json": {"query": query}}) for query in queries]


def later(seconds, action):
    threading.Timer(seconds, action).start()


# -- what is too much ----------------------------------------------------------------------------


def test_texts_that_would_wait_too_long_are_refused_and_told_when_to_come_back(tmp_path):
    encoder = Gated()
    with serving(tmp_path / "i.plx", encoder=encoder, waiting=3, threads=1, batch=1) as served:
        encoder.gate.clear()
        later(0.3, encoder.gate.set)
        answers = served.together(*searches(*(f"cats {number}" for number in range(10))))
        # one is being encoded, three wait
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [503] * 6
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 503)
        assert served.search("cats")["hits"]


def test_requests_beyond_the_limit_are_refused_but_health_still_answers(tmp_path):
    encoder = Gated()
    with serving(tmp_path / "i.plx", encoder=encoder, requests=2) as served:
        encoder.gate.clear()
        later(0.3, encoder.gate.set)
        answers = served.together(*searches("a", "b", "c", "d"), ("GET", "/health/live", {}), ("GET", "/info", {}))
        assert sorted(answer.status_code for answer in answers[:4]) == [200, 200, 503, 503]
        assert [answer.status_code for answer in answers[4:]] == [200, 503]
        assert answers[5].headers["retry-after"] == "1"
        assert served.ask("GET", "/metrics").text.count('polylex_refused_total{reason="requests"} 3.0') == 1


def test_an_answer_that_takes_too_long_is_given_up(tmp_path):
    encoder = Gated()
    with serving(tmp_path / "i.plx", encoder=encoder, request_seconds=0.1) as served:
        encoder.gate.clear()
        answer = served.ask("POST", "/search", json={"query": "cats"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        encoder.gate.set()
        assert served.search("cats")["hits"]


def test_a_large_body_is_refused_whether_or_not_it_says_how_large_it_is(tmp_path):
    async def pieces():
        for _ in range(100):
            yield b" " * 1000

    with serving(tmp_path / "i.plx", body_bytes=10_000) as served:
        headers = {"content-type": "application/json"}
        for content in (b" " * 10_001, pieces()):
            answer = served.ask("POST", "/search", content=content, headers=headers)
            assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert (
            served.ask("POST", "/search", content=b'{"query":"cats"}' + b" " * 9_900, headers=headers).status_code
            == 200
        )


def test_a_body_that_comes_too_slowly_is_given_up(tmp_path):
    async def pieces():
        for _ in range(100):
            await asyncio.sleep(0.05)
            yield b" "

    with serving(tmp_path / "i.plx", read_seconds=0.15) as served:
        answer = served.ask("POST", "/search", content=pieces(), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.headers["connection"]) == (408, "close")


def test_the_rate_of_a_caller_is_limited():
    rates = Rates(2.0)
    for _ in range(4):  # two seconds' worth may come at one time
        rates.admit("a", now=100.0)
    with pytest.raises(Problem) as refused:
        rates.admit("a", now=100.0)
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    rates.admit("b", now=100.0)
    rates.admit("a", now=100.5)  # one more after half a second
    with pytest.raises(Problem):
        rates.admit("a", now=100.5)
    for _ in range(1000):
        Rates(0).admit("a")


def test_a_rate_is_that_of_a_key_or_of_an_address(tmp_path):
    with serving(tmp_path / "i.plx", rate=1.0) as served:
        codes = [answer.status_code for answer in served.together(*searches("a", "b", "c"))]
        assert sorted(codes) == [200, 200, 429]
        assert served.ask("GET", "/health").status_code == 200


# -- who may ask ---------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "keys.json")


def test_a_key_file_holds_no_secret_and_only_its_owner_may_read_it(keys):
    secrets = [keys.add("website", "read"), keys.add("loader", "write")]
    text = keys.path.read_text()
    assert not any(secret in text or secret[4:] in text for secret in secrets)
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert [(key.name, key.role) for key in keys.read()] == [("website", "read"), ("loader", "write")]
    ring = KeyRing(keys.path)
    assert [ring.find(secret).name for secret in secrets] == ["website", "loader"]
    for wrong in ("", "plx_", secrets[0][:-1], secrets[0] + "a", secrets[0].lower(), "\udc00", keys.read()[0].sha256):
        assert ring.find(wrong) is None


def test_a_key_that_was_removed_opens_nothing_any_more(keys):
    old, new = keys.add("old", "read"), keys.add("new", "read")
    ring = KeyRing(keys.path)
    keys.remove("old")
    assert ring.find(old) is None
    assert ring.find(new).name == "new"
    keys.path.write_text("{")  # damaged: nobody gets in
    assert ring.find(new) is None
    keys.path.unlink()
    assert ring.find(new) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{"name": "a"}]}']
)
def test_a_file_that_holds_no_keys_is_refused(keys, text):
    keys.path.write_text(text)
    with pytest.raises(BadInput, match="keys"):
        KeyRing(keys.path)


def test_names_of_keys_are_used_once_and_can_stand_in_a_log(keys):
    keys.add("a", "read")
    for name in ("a", "", "a b", "a\n", "../a", "x" * 65):
        with pytest.raises(BadInput, match="name"):
            keys.add(name, "read")
    with pytest.raises(BadInput, match="has no key 'b'; it has a"):
        keys.remove("b")


def test_keys_say_who_may_read_and_who_may_write(tmp_path, keys):
    read, write = keys.add("website", "read"), keys.add("loader", "write")
    with serving(tmp_path / "i.plx", writable=True, keys=str(keys.path)) as served:
        body = {"documents": [{"id": "n", "text": "zero"}]}

        def codes(headers):
            search = served.ask("POST", "/search", json={"query": "cats"}, headers=headers)
            return search.status_code, served.ask("POST", "/documents", json=body, headers=headers).status_code

        assert codes({}) == (401, 401)
        for wrong in ("", "x", read[:-1] + "!", read.upper(), f"{read} {write}"):
            assert codes({"x-api-key": wrong}) == (401, 401)
            assert codes({"authorization": f"Bearer {wrong}"}) == (401, 401)
        assert codes({"authorization": f"Basic {read}"}) == (401, 401)
        assert codes({"authorization": f"Bearer {read}"}) == (200, 403)
        assert codes({"x-api-key": read}) == (200, 403)
        assert codes({"authorization": f"bearer {write}"}) == (200, 200)
        refused = served.ask("GET", "/info")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert served.ask("GET", "/metrics").status_code == 401
        for url in ("/health", "/", "/openapi.json"):
            assert served.ask("GET", url).status_code == 200
        assert "securitySchemes" in served.ask("GET", "/openapi.json").json()["components"]


def test_guessing_keys_keeps_nobody_out_and_gets_nowhere(tmp_path, keys):
    read = keys.add("website", "read")
    with serving(tmp_path / "i.plx", keys=str(keys.path), rate=5.0) as served:
        guesses = [("GET", "/info", {"headers": {"x-api-key": f"plx_{number}"}}) for number in range(100)]
        assert {answer.status_code for answer in served.together(*guesses)} == {401, 429}
        assert served.ask("GET", "/info", headers={"x-api-key": read}).status_code == 200


# -- from where ----------------------------------------------------------------------------------


def test_a_server_without_keys_listens_to_this_machine_only_unless_told_otherwise(keys):
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        Settings(index="i", host=host)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(BadInput, match="there are no API keys"):
            Settings(index="i", host=host)
        Settings(index="i", host=host, public=True)
        Settings(index="i", host=host, keys="keys.json")


def test_a_name_that_another_page_made_up_for_this_machine_is_refused(tmp_path):
    with serving(tmp_path / "i.plx", hosts=("search.example",)) as served:
        for host, status in (
            ("localhost", 200),
            ("127.0.0.1:8765", 200),
            ("[::1]:8765", 200),
            ("LOCALHOST:1", 200),
            ("search.example", 200),
            ("evil.example", 421),
            ("localhost.evil.example:8765", 421),
            ("", 421),
        ):
            assert served.ask("GET", "/health", headers={"host": host}).status_code == status, host


def test_pages_of_other_sites_may_call_only_where_they_were_named(tmp_path):
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with serving(tmp_path / "i.plx") as served:
        assert "access-control-allow-origin" not in served.ask("OPTIONS", "/search", headers=asks).headers
        assert "access-control-allow-origin" not in served.ask("GET", "/health", headers=asks).headers
    with serving(tmp_path / "i.plx", origins=("https://app.example",)) as served:
        assert served.ask("OPTIONS", "/search", headers=asks).headers["access-control-allow-origin"] == asks["origin"]
        # problems can be read too
        assert served.ask("GET", "/nope", headers=asks).headers["access-control-allow-origin"] == asks["origin"]
        other = {**asks, "origin": "https://evil.example"}
        assert "access-control-allow-origin" not in served.ask("GET", "/health", headers=other).headers


def test_a_request_may_be_named_but_not_so_that_it_breaks_headers_or_logs(tmp_path):
    with serving(tmp_path / "i.plx") as served:
        assert (
            served.ask("GET", "/health", headers={"x-request-id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
        )
        for bad in ("a b", "x" * 65, 'a"b', "a\tb", "ä".encode()):
            given = served.ask("GET", "/health", headers={"x-request-id": bad}).headers["x-request-id"]
            assert len(given) == 16
            assert int(given, 16) >= 0


# -- settings ------------------------------------------------------------------------------------


def test_settings_survive_the_way_to_a_worker():
    settings = Settings(index="i", origins=("a", "b"), hosts=("c",), writable=True, limits=Limits(rate=2.5, texts=7))
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("name", ["body_bytes", "texts", "waiting", "batch", "request_seconds", "idle_seconds"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(BadInput, match=f"{name} must be at least"):
        Limits(**{name: 0})


def test_tls_needs_both_files():
    with pytest.raises(BadInput, match="certificate and its key"):
        Settings(index="i", tls_cert="cert.pem")


def test_a_problem_does_not_name_what_is_hidden():
    problem = problem_of(BadInput("the index /srv/data/i.plx is closed; open it again"), ("/srv/data/i.plx",))
    assert problem.detail == "the index the index is closed; open it again"
    assert "/srv" not in problem_of(VocabMismatch("/srv/data/i.plx has another")).detail


# -- batches -------------------------------------------------------------------------------------


def lengths(texts, kind, truncate):
    """A vector with one term, whose weight is the length of the text."""
    rows = [(np.array([0], np.uint32), np.array([len(text)], np.float32)) for text in texts]
    return SparseVectors.from_rows(rows, "v")


def run(coroutine_function):
    return asyncio.run(coroutine_function())


def test_texts_come_back_in_order_whatever_batches_they_went_in():
    sizes = []

    async def work():
        batcher = Batcher(lengths, 2, Limits(batch=3), lambda size, *_: sizes.append(size))
        found = await asyncio.gather(
            *(batcher.encode(["x" * (10 * a + b + 1) for b in range(5)], "query") for a in range(4))
        )
        batcher.close()
        return [vectors.weights.tolist() for vectors in found]

    assert run(work) == [[10 * a + b + 1 for b in range(5)] for a in range(4)]
    assert sum(sizes) == 20
    assert max(sizes) == 3


def test_a_text_waits_for_others_to_join_it_but_not_for_ever():
    sizes = []

    async def work():
        batcher = Batcher(lengths, 1, Limits(batch=4, batch_wait_ms=100), lambda size, *_: sizes.append(size))
        await asyncio.gather(batcher.encode(["a"], "query"), batcher.encode(["b"], "query"))
        await asyncio.gather(*(batcher.encode(["a"], "query") for _ in range(4)))
        batcher.close()

    run(work)
    assert sizes == [2, 4]


def test_queries_and_documents_take_turns():
    order = []

    def note(texts, kind, truncate):
        order.append(kind)
        time.sleep(0.005)
        return lengths(texts, kind, truncate)

    async def work():
        batcher = Batcher(note, 1, Limits(batch=1))
        await asyncio.gather(batcher.encode(["d"] * 6, "document"), batcher.encode(["q"] * 3, "query"))
        batcher.close()

    run(work)
    assert order == ["document", "query"] * 3 + ["document"] * 3


def test_a_text_that_nobody_waits_for_any_more_is_not_encoded():
    seen = []

    def slow(texts, kind, truncate):
        seen.extend(texts)
        time.sleep(0.05)
        return lengths(texts, kind, truncate)

    async def work():
        batcher = Batcher(slow, 1, Limits(batch=1))
        first = asyncio.create_task(batcher.encode(["first"], "query"))
        second = asyncio.create_task(batcher.encode(["second"], "query"))
        await asyncio.sleep(0.01)
        second.cancel()
        await first
        await batcher.encode(["third"], "query")
        batcher.close()

    run(work)
    assert seen == ["first", "third"]


def test_queries_are_encoded_once_while_they_are_remembered(tmp_path):
    encoder = WordEncoder(WORDS)
    with serving(tmp_path / "i.plx", encoder=encoder, cached_queries=2) as served:
        before = encoder.encoded
        for query in ("cats", "cats", "dogs", "cats", "men", "dogs"):  # "dogs" was pushed out by "men"
            served.search(query)
        assert encoder.encoded - before == 4


def test_documents_can_be_read_while_the_server_is_busy_encoding(tmp_path):
    encoder = Gated()
    with serving(tmp_path / "i.plx", encoder=encoder, threads=1) as served:
        encoder.gate.clear()
        later(0.3, encoder.gate.set)
        _, document = served.together(*searches("cats"), ("GET", "/documents/m1", {}))
        assert document.json()["fields"] == DOCUMENTS[0]
