"""The collapse and grounding monitor."""

import json

import pytest

torch = pytest.importorskip("torch")

from polylex.train.monitor import Health, Monitor, Reading, plot, why_stop  # noqa: E402
from polylex.train.recipe import AlignConfig  # noqa: E402

NAMES = ["e_a", "e_b", "e_c", "e_d"]
CONFIG = AlignConfig(model="m", teacher="t", train_files=("x",), output_dir="o")
CPU = torch.device("cpu")


def test_a_reading_by_hand():
    monitor = Monitor(NAMES, ["de", "zh", "fr"], CPU)
    weights = torch.tensor([[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    monitor.see(weights, torch.tensor([0, 0, 1]), torch.tensor([[0.5, 0.0], [0.5, 0.5], [0.0, 0.0]]))
    monitor.compare("translation", weights[:2], torch.tensor([[1.0, 0.0, 1.0, 0.0], [3.0, 0.0, 0.0, 0.0]]),
                    torch.tensor([0, 0]))  # fmt: skip
    reading = monitor.read()
    # minima 1 of maxima 1 + 2 + 1; the other pair is equal
    assert reading.languages == {
        "de": Health(2, 1.5, 1.5, 0.0, (0.25 + 1) / 2, None),
        "zh": Health(1, 0.0, 0.0, 1.0, None, None),
    }
    assert reading.all == Health(3, 1.0, 1.0, round(1 / 3, 5), 0.625, None)
    assert reading.live == 0.5
    assert reading.always_on == (("e_a", 0.6667),) and reading.always_on_count == 1
    assert monitor.read().all == Health(0, None, None, None, None, None)


def test_two_silent_texts_overlap_by_nothing():
    monitor = Monitor(NAMES, ["de"], CPU)
    monitor.compare("teacher", torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([0]))
    assert monitor.read().all.teacher == 0


def reading(live=0.5, always=0, **health):
    seen = {"texts": 9, "terms": 50.0, "source_terms": 9.0, "empty": 0.0, "translation": 0.5, "teacher": 0.5}
    return Reading(Health(**{**seen, **health}), {}, live, (("e_stitches", 0.97),) * min(always, 1), always)


@pytest.mark.parametrize(
    ("sick", "told"),
    [
        (reading(empty=0.9), "0.9 of the texts have no pivot term; the limit monitor_max_empty is 0.3"),
        (reading(terms=2500.0), "2.5e.03 active terms a text"),
        (reading(always=300), r"300 terms are on in more than half of all texts \(e_stitches\)"),
        (reading(live=0.001), "0.001 of the vocabulary is in use"),
        (reading(translation=0.001), "0.001 is the overlap of translations"),
        (reading(teacher=0.01), "not grounded in words"),
    ],
)
def test_each_sickness_stops_a_run_by_name(sick, told):
    import re

    assert re.search(told, why_stop(sick, CONFIG) or "")


def test_a_healthy_run_and_one_without_a_probe_go_on():
    assert why_stop(reading(), CONFIG) is None
    assert why_stop(reading(translation=None, teacher=None), CONFIG) is None


def test_curves_are_drawn_where_matplotlib_is(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"step": 1, "evaluation": {}}) + "\n", encoding="utf-8")
    assert plot(log, tmp_path / "none.png") is False
    log.write_text(
        json.dumps({"step": 1, "loss": 2.0, "monitor": reading(teacher=None).to_dict()}) + "\n", encoding="utf-8"
    )
    drawn = plot(log, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists() == drawn
