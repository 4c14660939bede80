"""A small part of what fuzz_readers.py does at length; and that the fuzzer finds what it should."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import fuzz_readers
import pytest
from fuzz_readers import Reader, build_readers, damage, folder_for, run_input, run_reader, sanitizer_libraries
from hypothesis import given, settings
from hypothesis import strategies as st

READERS = tuple(build_readers())


@cache
def readers():
    return build_readers()


@pytest.mark.parametrize("name", READERS)
@given(seed=st.integers(0, 2**64))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_read_or_refused(name, seed):
    with folder_for(readers()[name]) as folder:
        assert run_input(readers()[name], folder, name, str(seed)) in ("read", "refused")


@pytest.mark.parametrize("name", ["segment", "vectors", "catalog", "vocabulary", "documents", "trec", "filter"])
@given(content=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_or_refused(name, content):
    from polylex.errors import PolylexError

    reader = readers()[name]
    with folder_for(reader) as folder:
        for file in reader.samples:
            (folder / file).write_bytes(content)
            try:
                reader.read(folder, file)
            except PolylexError as fault:
                assert str(fault)


@pytest.mark.parametrize("name", READERS)
def test_undamaged_files_are_read(name):
    reader = readers()[name]
    with folder_for(reader) as folder:
        for file in sorted(reader.samples):
            if name != "packed" or file.startswith("documents.jsonl"):  # what else is packed is no collection
                reader.read(folder, file)


def test_damage_follows_from_the_seed_and_changes_most_files():
    data = bytes(range(256)) * 4
    first = [damage(data, random.Random(seed)) for seed in range(200)]
    assert first == [damage(data, random.Random(seed)) for seed in range(200)]
    assert sum(each != data for each in first) > 100
    assert len({len(each) for each in first}) > 10


def faulty(read):
    """A reader with a planted fault: every sixteenth file, or so, trips it."""

    def reading(folder, name):
        content = (folder / name).read_bytes()
        if sum(content) % 16 == 0:
            read()

    return Reader({"sample": bytes(range(64))}, reading)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda: {}["missing"], "KeyError: 'missing'"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process died: signal 9"),
        (lambda: os._exit(7), "the process died: exit code 7"),
        (lambda: (_ for _ in ()).throw(MemoryError("too much")), "MemoryError: too much"),
    ],
    ids=["exception", "crash", "exit", "memory"],
)
def test_the_fuzzer_finds_a_planted_fault_and_goes_on_behind_it(read, expected):
    result = run_reader(faulty(read), "planted", 0, 60)
    assert result["found"] == len(result["findings"]) > 1
    assert {text for _, text, _ in result["findings"]} == {expected}
    assert result["read"] + result["found"] == 60


def test_the_fuzzer_finds_a_reader_that_hangs(monkeypatch):
    monkeypatch.setattr(fuzz_readers, "SECONDS", 1)
    number = next(n for n in range(99) if run_reader(faulty(lambda: 1 / 0), "planted", n, 1)["found"])
    result = run_reader(faulty(lambda: time.sleep(30)), "planted", number, 1)
    assert [text for _, text, _ in result["findings"]] == ["Hang: more than 1 seconds"]


@pytest.mark.skipif(not sanitizer_libraries(), reason="needs gcc with its sanitizers")
def test_the_kernels_read_nothing_outside_of_a_damaged_segment():
    script = Path(fuzz_readers.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "--sanitize", "--reader", "segment", "--inputs", "600", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '"found": 0' in done.stdout
