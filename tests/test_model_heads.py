import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import numpy as np  # noqa: E402
from tiny_milco import tiny_milco  # noqa: E402

from polylex.errors import BadInput  # noqa: E402
from polylex.model import heads  # noqa: E402
from polylex.model.connector import Connector  # noqa: E402
from polylex.model.heads import PivotHead, SourceHead, pool_max  # noqa: E402
from polylex.model.tokens import TokenBatch  # noqa: E402
from polylex.model.views import Views  # noqa: E402
from polylex.runtime.tokens import Window  # noqa: E402


def window(ids, content=None):
    ids = np.array(ids, np.int64)
    return Window(ids, np.ones(len(ids), bool) if content is None else np.array(content), np.zeros((len(ids), 2), int))


def test_the_maximum_is_over_speaking_tokens_only_and_may_be_negative():
    logits = torch.tensor([[[-1.0, 5.0], [-2.0, 3.0], [9.0, 9.0]]])
    assert pool_max(logits, torch.tensor([[True, True, False]])).tolist() == [[-1.0, 5.0]]
    assert pool_max(logits, torch.tensor([[False, True, False]])).tolist() == [[-2.0, 3.0]]


def test_a_text_in_which_no_token_speaks_has_the_zero_vector():
    peaks = pool_max(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))
    assert torch.isinf(peaks).all()
    assert Views(peaks, None).pivot.tolist() == [[0, 0, 0]]


def test_pivot_weights_are_log_one_plus_relu_of_the_peaks():
    pivot = Views(torch.tensor([[-3.0, 0.0, np.e - 1]]), None).pivot
    torch.testing.assert_close(pivot, torch.tensor([[0.0, 0.0, 1.0]]))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(BadInput, match=r"speaks \(1, 3\) must match logits \(1, 2\)"):
        pool_max(torch.zeros(1, 2, 4), torch.ones(1, 3, dtype=torch.bool))


def test_peaks_in_blocks_are_the_peaks_of_all_logits_at_once(monkeypatch):
    torch.manual_seed(3)
    head = PivotHead(8, 11, 1e-5)
    hidden = torch.randn(2, 7, 8)
    speaks = torch.rand(2, 7) > 0.3
    whole = pool_max(head.decoder(hidden), speaks)
    monkeypatch.setattr(heads, "BLOCK", 3)
    torch.testing.assert_close(head.peaks(hidden, speaks), whole, rtol=0, atol=1e-6)


def test_gradients_reach_the_decoder_through_blocks(monkeypatch):
    monkeypatch.setattr(heads, "BLOCK", 2)
    head = PivotHead(4, 3, 1e-5)
    with torch.no_grad():
        head.decoder.weight.copy_(torch.eye(3, 4))
        head.decoder.bias.zero_()
    hidden = torch.tensor([[[1.0, 0, 0, 7], [2, 0, 0, 7], [3, 5, 0, 7]]])
    head.peaks(hidden, torch.ones(1, 3, dtype=torch.bool))[0, 0].backward()
    assert head.decoder.weight.grad[0].tolist() == [3, 5, 0, 7]  # the token that won term 0, and no other
    assert not head.decoder.weight.grad[1:].any()


def test_the_echo_is_relu_before_scale_and_silent_where_it_may_not_speak():
    echo = SourceHead(2, scaled=True)
    with torch.no_grad():
        echo.linear.weight.copy_(torch.tensor([[1.0, -1.0]]))
        echo.linear.bias.fill_(0.5)
        echo.scale.fill_(3)
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 0.0]]])
    assert echo(hidden, torch.tensor([[True, True, False]])).tolist() == [[4.5, 0, 0]]


def test_the_echo_of_the_english_head_has_no_scale():
    assert set(SourceHead(2, scaled=False).state_dict()) == {"linear.weight", "linear.bias"}


def test_the_connector_s_gelu_is_exact():
    connector = Connector(1, 1)
    with torch.no_grad():
        connector.linear.weight.fill_(1)
        connector.linear.bias.zero_()
    # x * Phi(x): Phi(1) = 0.8413447, Phi(-2) = 0.0227501; the tanh form gives 0.841192 and -0.0454023
    torch.testing.assert_close(connector(torch.tensor([[1.0], [-2.0]])), torch.tensor([[0.8413447], [-0.0455003]]))


def test_a_batch_is_padded_with_the_given_id_and_says_what_is_real():
    batch = TokenBatch.of([window([0, 9, 2], [False, True, False]), window([5])], pad=1)
    assert batch.ids.tolist() == [[0, 9, 2], [5, 1, 1]]
    assert batch.real.tolist() == [[True, True, True], [True, False, False]]
    assert batch.content.tolist() == [[False, True, False], [True, False, False]]


def test_a_text_of_special_tokens_only_is_silent_unless_empty_texts_speak():
    batch = TokenBatch.of([window([0, 2], [False, False]), window([0, 9], [False, True])], pad=1)
    assert batch.speaks("all", False).tolist() == [[False, False], [True, True]]
    assert batch.speaks("all", True).tolist() == [[True, True], [True, True]]
    assert batch.speaks("content", True).tolist() == [[False, False], [False, True]]


def test_hidden_and_the_decoder_make_up_forward():
    model = tiny_milco()
    batch = TokenBatch.of([w for ws in model.windows(["Tesla net worth", "陌"]) for w in ws], model.encoder.pad)
    with torch.no_grad():
        hidden, views = model.hidden(batch), model(batch)
        assert hidden.pivot.shape == (2, batch.ids.shape[1], 32)
        logits = model.pivot_head.decoder(hidden.pivot)
        torch.testing.assert_close(pool_max(logits, hidden.speaks), views.peaks, rtol=0, atol=1e-5)
    assert views.peaks.shape == views.pivot.shape == (2, 2505)
    assert views.source.shape == batch.ids.shape
