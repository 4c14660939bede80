"""Losses by hand."""

import math

import pytest

torch = pytest.importorskip("torch")

from polylex.errors import BadInput  # noqa: E402
from polylex.train.losses import (  # noqa: E402
    align_mse,
    distill_kl,
    flops,
    in_batch,
    l1,
    margin_mse,
    warm_up,
)


def test_align_mse_is_over_the_union_of_active_terms_with_the_teacher_clamped():
    student = torch.tensor([[1.0, -1.0, 2.0, -3.0]])
    teacher = torch.tensor([[2.0, 3.0, -9.0, -9.0]])
    total, terms = align_mse(student, teacher, floor=-0.5)
    # (1-2)^2 + (-1-3)^2 + (2+0.5)^2; the fourth term is silent on both sides
    assert float(total) == pytest.approx(1 + 16 + 6.25)
    assert float(terms) == 3


def test_align_mse_skips_silent_texts():
    silent = torch.full((1, 3), -torch.inf, requires_grad=True)
    total, terms = align_mse(silent, torch.ones(1, 3))
    assert total.item() == 0 and terms.item() == 0
    total.backward()
    assert silent.grad.count_nonzero() == 0


def test_distill_kl_by_hand():
    teacher = torch.log(torch.tensor([[0.75, 0.25]]))
    student = torch.log(torch.tensor([[0.5, 0.5]]))
    assert float(distill_kl(student, teacher)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(distill_kl(teacher + 5, teacher)) == pytest.approx(0, abs=1e-6)


def test_distill_kl_leaves_out_unknown_documents_and_lonely_queries():
    teacher = torch.tensor([[math.log(3.0), 0.0, 99.0], [5.0, 1.0, 1.0]])
    student = torch.tensor([[0.0, 0.0, -99.0], [1.0, 2.0, 3.0]])
    known = torch.tensor([[True, True, False], [True, False, False]])
    # only the first query counts: teacher 3/4, 1/4 against 1/2, 1/2
    assert float(distill_kl(student, teacher, known)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_margin_mse_by_hand():
    student = torch.tensor([[5.0, 3.0, 100.0]])
    teacher = torch.tensor([[4.0, 1.0, 0.0]])
    known = torch.tensor([[True, True, False]])
    assert float(margin_mse(student, teacher, known)) == pytest.approx((2 - 3) ** 2)


def test_in_batch_ignores_other_positives_but_never_the_target():
    scores = torch.tensor([[1.0, 50.0, 1.0]])
    ignored = torch.tensor([[True, True, False]])
    assert float(in_batch(scores, torch.tensor([0]), ignored)) == pytest.approx(math.log(2))


def test_l1_and_flops_by_hand():
    weights = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    assert float(l1(weights)) == pytest.approx((3 + 3) / 2)
    assert float(flops(weights.mean(0))) == pytest.approx(0.5**2 + 2.5**2)


def test_the_warm_up_is_quadratic_and_then_flat():
    assert [warm_up(p, 0.5) for p in (0, 0.25, 0.5, 0.9)] == [0, 0.25, 1, 1]
    assert warm_up(0.0, 0.0) == 1


def test_shapes_must_agree():
    with pytest.raises(BadInput, match=r"student \(1, 2\) and teacher \(1, 3\)"):
        align_mse(torch.zeros(1, 2), torch.zeros(1, 3))
