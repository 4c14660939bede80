"""The sparse-gradient head against the eager formula: autograd through all logits."""

import pytest

torch = pytest.importorskip("torch")

from polylex.errors import BadInput  # noqa: E402
from polylex.train import head  # noqa: E402
from polylex.train.head import find_peaks, peaks  # noqa: E402


def eager(hidden, speaks, weight, bias):
    """The definition. max(dim), as ours, gives a tie to its first token."""
    logits = (hidden @ weight.T + bias).masked_fill(~speaks[..., None], -torch.inf)
    return logits.max(dim=1).values


def problem(texts=4, length=9, width=8, terms=50, seed=0):
    torch.manual_seed(seed)
    hidden = torch.randn(texts, length, width, requires_grad=True)
    weight = torch.randn(terms, width, requires_grad=True)
    bias = torch.randn(terms, requires_grad=True)
    speaks = torch.rand(texts, length) > 0.3
    speaks[:, 2] = True
    return hidden, speaks, weight, bias


def gradients(function, hidden, speaks, weight, bias, downstream):
    result = function(hidden, speaks, weight, bias)
    downstream(result).backward()
    found = [result.detach(), hidden.grad, weight.grad, bias.grad]
    for parameter in (hidden, weight, bias):
        parameter.grad = None
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "downstream",
    [
        lambda r: r.relu().log1p().sum(),
        lambda r: (r * torch.sin(torch.arange(r.numel(), dtype=torch.float32)).view_as(r)).sum(),
        lambda r: (r.relu().log1p().mean(0) ** 2).sum(),
    ],
)
def test_values_and_gradients_are_those_of_the_eager_formula(seed, downstream):
    inputs = problem(seed=seed)
    for mine, theirs in zip(gradients(peaks, *inputs, downstream), gradients(eager, *inputs, downstream), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_blocks_of_terms_and_of_entries_change_nothing(monkeypatch):
    inputs = problem()
    whole = gradients(peaks, *inputs, lambda r: r.square().sum())
    monkeypatch.setattr(head, "BLOCK_ELEMENTS", 7 * 4 * 9)
    monkeypatch.setattr(head, "BLOCK_ENTRIES", 11)
    for mine, theirs in zip(gradients(peaks, *inputs, lambda r: r.square().sum()), whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_tie_gives_its_gradient_to_the_first_token_that_may_speak():
    hidden = torch.tensor([[[3.0], [1.0], [1.0], [0.5]]], requires_grad=True)
    speaks = torch.tensor([[False, True, True, True]])
    weight, bias = torch.tensor([[2.0]], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    result = peaks(hidden, speaks, weight, bias)
    assert result.tolist() == [[3.0]]  # 2 x 1 + 1; the louder first token may not speak
    result.sum().backward()
    assert hidden.grad.flatten().tolist() == [0.0, 2.0, 0.0, 0.0]
    assert weight.grad.tolist() == [[1.0]]
    assert bias.grad.tolist() == [1.0]


def test_a_text_that_may_not_speak_is_minus_infinity_and_has_no_gradient():
    hidden, speaks, weight, bias = problem()
    speaks[1] = False
    result = peaks(hidden, speaks, weight, bias)
    assert torch.isneginf(result[1]).all() and result[[0, 2, 3]].isfinite().all()
    result.relu().log1p().sum().backward()
    assert hidden.grad[1].count_nonzero() == 0
    assert hidden.grad.isfinite().all() and weight.grad.isfinite().all() and bias.grad.isfinite().all()


def test_all_negative_rows_get_the_gradient_that_the_loss_gives_them():
    hidden, speaks, weight, _ = problem()
    bias = torch.full((len(weight),), -100.0, requires_grad=True)
    quiet = gradients(peaks, hidden, speaks, weight, bias, lambda r: r.relu().sum())
    assert all(gradient.count_nonzero() == 0 for gradient in quiet[1:])
    loud = gradients(peaks, hidden, speaks, weight, bias, lambda r: r.sum())
    for mine, theirs in zip(loud, gradients(eager, hidden, speaks, weight, bias, lambda r: r.sum()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", [1, 7])
def test_padding_changes_neither_values_nor_gradients(padding):
    hidden, speaks, weight, bias = problem()
    wide = torch.nn.functional.pad(hidden.detach(), (0, 0, 0, padding), value=50.0).requires_grad_()
    deaf = torch.nn.functional.pad(speaks, (0, padding), value=False)
    alone = gradients(peaks, hidden, speaks, weight, bias, lambda r: r.square().sum())
    padded = gradients(peaks, wide, deaf, weight, bias, lambda r: r.square().sum())
    assert torch.equal(alone[0], padded[0])
    torch.testing.assert_close(padded[1][:, : hidden.shape[1]], alone[1])
    assert padded[1][:, hidden.shape[1] :].count_nonzero() == 0


def test_under_autocast_gradients_agree_within_bfloat16():
    inputs = problem(texts=6, length=20, width=32, terms=200)
    exact = gradients(eager, *inputs, lambda r: r.relu().log1p().sum())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(peaks, *inputs, lambda r: r.relu().log1p().sum())
    assert found[0].dtype == torch.float32
    assert all(gradient.dtype == torch.float32 for gradient in found[1:])
    for mine, theirs in zip(found, exact, strict=True):
        # Where two tokens are within rounding of each other the other one may win: compare in norm.
        assert float((mine - theirs).norm() / theirs.norm()) < 0.12


def test_empty_batches_and_positions():
    best, at = find_peaks(torch.zeros(0, 3, 4), torch.zeros(0, 3, dtype=torch.bool), torch.zeros(5, 4), torch.zeros(5))
    assert best.shape == at.shape == (0, 5)
    best, at = find_peaks(
        torch.tensor([[[1.0], [3.0], [2.0]]]),
        torch.tensor([[True, True, True]]),
        torch.tensor([[1.0], [-1.0]]),
        torch.tensor([0.0, 5.0]),
    )
    assert best.tolist() == [[3.0, 4.0]] and at.tolist() == [[1, 0]]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(BadInput, match=r"hidden \(1, 2, 3\).*weight \(5, 4\)"):
        peaks(torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool), torch.zeros(5, 4), torch.zeros(5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused kernel runs on GPUs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 24, 70), (2, 300, 96, 1000), (40, 33, 384, 4000), (7, 128, 768, 515)])
def test_the_fused_kernel_agrees_with_the_eager_formula(dtype, shape):
    hidden, speaks, weight, bias = (
        t.detach().to("cuda").requires_grad_(t.is_floating_point()) for t in problem(*shape)
    )
    speaks[0] = False
    sparse = (torch.rand(shape[0], shape[3], device="cuda") < 0.1) * torch.randn(shape[0], shape[3], device="cuda")
    sparse[0] = 0

    def downstream(result):
        return (result.masked_fill(result.isneginf(), 0) * sparse).sum()

    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        found = gradients(lambda *inputs: peaks(*inputs, fused=True), hidden, speaks, weight, bias, downstream)
    exact = gradients(
        eager, *(t.double().detach().requires_grad_() if t.is_floating_point() else t
                 for t in (hidden, speaks, weight, bias)), downstream,
    )  # fmt: skip
    for mine, theirs in zip(found, exact, strict=True):
        both = theirs.isfinite()
        assert torch.equal(both, mine.isfinite())
        error = float((mine[both] - theirs[both]).norm() / theirs[both].norm())
        assert error < (1e-5 if dtype == torch.float32 else 0.15)


def test_without_a_working_kernel_the_head_says_so_and_does_without(caplog):
    if torch.cuda.is_available():
        pytest.skip("the kernel works here")
    head.has_triton.cache_clear()
    with caplog.at_level("WARNING", logger="polylex.train.head"):
        assert head.has_triton() is False
    assert "falls back to its PyTorch form" in caplog.text
