import pytest

torch = pytest.importorskip("torch")

from polylex.train.sparsity import keep_heaviest, mean_terms, pressure  # noqa: E402
from polylex.train.student import Weights  # noqa: E402


def texts():
    pivot = torch.tensor([[3.0, 0.0, 1.0, 2.0], [0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    echo = torch.tensor([[2.5, 0.0], [0.7, 0.6], [0.0, 0.0]], requires_grad=True)
    return Weights(pivot, torch.tensor([[5, 6], [7, 8], [0, 0]]), echo)


def test_terms_of_both_views_are_counted_and_long_texts_count_more():
    # 4 and 3 terms, of 30 and 10 tokens: (4 * 30 + 3 * 10) / 40
    assert mean_terms(texts(), torch.tensor([30.0, 10.0, 0.0])).item() == pytest.approx(3.75)
    assert mean_terms(texts(), torch.zeros(3)).item() == 0


def test_the_pressure_is_1_at_the_aim_rises_steeply_and_has_an_end():
    measured = torch.tensor([100.0, 110.0, 50.0, 1000.0])
    assert pressure(measured, 100.0).tolist() == pytest.approx([1.0, 1.1**8, 0.5**8, 10.0], rel=1e-5)


def test_the_heaviest_terms_of_both_views_stay():
    kept = keep_heaviest(texts(), 2)
    assert kept.pivot.tolist() == [[3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert kept.echo.tolist() == [[2.5, 0], [pytest.approx(0.7), pytest.approx(0.6)], [0, 0]]


def test_what_was_cut_gets_no_gradient():
    held = texts()
    kept = keep_heaviest(held, 1)
    (kept.pivot.sum() + kept.echo.sum()).backward()
    assert held.pivot.grad[:2].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert held.echo.grad[:2].tolist() == [[0, 0], [1, 0]]


def test_more_terms_than_there_are_change_nothing():
    held = texts()
    kept = keep_heaviest(held, 99)
    assert torch.equal(kept.pivot, held.pivot) and torch.equal(kept.echo, held.echo)
