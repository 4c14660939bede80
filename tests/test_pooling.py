import numpy as np

from polylex.pooling import merge, window_row


def test_a_peak_becomes_log_one_plus_and_a_negative_one_nothing():
    terms, weights = window_row(np.array([-1, np.e - 1, 0, 1], np.float32), np.array([0]), None, 4)
    assert terms.tolist() == [1, 3]
    np.testing.assert_allclose(weights, [1.0, np.log(2)], rtol=1e-6)


def test_equal_source_tokens_are_summed_behind_the_pivot_terms():
    peaks = np.array([np.e - 1, -np.inf], np.float32)
    terms, weights = window_row(peaks, np.array([7, 5, 7, 6]), np.array([0.5, 2, 0.25, 0], np.float32), 2)
    assert terms.tolist() == [0, 2 + 5, 2 + 7]
    np.testing.assert_allclose(weights, [1.0, 2.0, 0.75])


def test_a_silent_window_has_no_term():
    terms, weights = window_row(np.full(3, -np.inf, np.float32), np.array([1, 2]), np.zeros(2, np.float32), 3)
    assert len(terms) == len(weights) == 0


def test_a_peak_too_small_for_a_weight_is_dropped():
    terms, _ = window_row(np.array([1e-45, 1], np.float32), np.array([0]), None, 2)
    assert terms.tolist()[-1] == 1


def test_windows_are_merged_by_the_maximum_of_each_term_to_a_vector_as_long_as_they_are():
    def row(*pairs):
        return np.array([t for t, _ in pairs], np.uint32), np.array([w for _, w in pairs], np.float32)

    # Lengths 5 and 15, and an empty window, which does not count: 10 on average. Maxima 9, 4, 12: length 241 ** .5.
    terms, weights = merge([row((1, 3), (4, 4)), row((1, 9), (9, 12)), row()])
    assert terms.tolist() == [1, 4, 9]
    np.testing.assert_allclose(weights, np.array([9, 4, 12]) * 10 / 241**0.5, rtol=1e-6)
    assert terms.dtype == np.uint32 and weights.dtype == np.float32
