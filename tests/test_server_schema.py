"""Requests made up from the OpenAPI document, right ones and wrong ones: whatever comes, the answer is as described."""

import threading
import time

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from served import DOCUMENTS, WORDS
from word_encoder import WordEncoder

from polylex.index import Index
from polylex.retriever import Retriever
from polylex.server import openapi
from polylex.server.app import application
from polylex.server.endpoints import ENDPOINTS
from polylex.server.protocol import GuardedProtocol
from polylex.server.service import Service
from polylex.server.settings import Limits, Settings

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


GenerationMode = schemathesis.GenerationMode
NOTHING_TO_GET_WRONG = ("GET /info", "GET /health", "GET /health/live", "GET /health/ready", "GET /metrics")


class TruncatingEncoder(WordEncoder):
    """Every text fits it."""

    def encode(self, texts, *, kind="document", max_windows=None):
        return super().encode(texts, kind=kind)


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    path = tmp_path_factory.mktemp("schema") / "i.plx"
    encoder = TruncatingEncoder(WORDS)
    Retriever.build(path, DOCUMENTS, encoder).close()
    wishes = Settings(index=str(path), writable=True, threads=2, limits=Limits(lock_seconds=30))
    app = application(wishes, Service(Index.open(path), encoder, wishes.limits))
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=GuardedProtocol, ws="none", log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


schema = schemathesis.openapi.from_dict(openapi.document(ENDPOINTS, keys=False))
OPERATIONS = {found.ok().label: found.ok() for found in schema.get_all_operations()}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_comes_the_answer_is_as_described(api, operation, mode):
    if mode == GenerationMode.NEGATIVE and operation in NOTHING_TO_GET_WRONG:
        return

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=OPERATIONS[operation].as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call(base_url=api)
        refused = mode == GenerationMode.NEGATIVE and answer.status_code != 413  # too large is refused, too
        case.validate_response(answer, checks=[*CHECKS, checks.negative_data_rejection] if refused else CHECKS)

    ask()
