import numpy as np
import pytest

from polylex.errors import BadInput
from polylex.train.data import Group
from polylex.train.mining import Mining, candidates, mine
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

WORDS = ["cat", "dog", "bird", "fish", "sleeps"]


class WordEncoder:
    """Counts words, so that a score is the number of words in common."""

    name, weights_id = "words", "w1"
    vocab = Vocab(WORDS, [])

    def encode(self, texts, *, kind="document"):
        rows = [
            {f"e_{word}": float(text.split().count(word)) for word in WORDS if word in text.split()} for text in texts
        ]
        return SparseVectors.from_dicts(rows, self.vocab)


GROUPS = [
    Group("cat sleeps", ("the cat sleeps sleeps",), ("old",), source="s"),
    Group("bird", ("a bird",), (), source="s"),
    Group("dog sleeps", ("dog sleeps here", "cat and dog sleeps too"), (), source="s"),
]


def test_negatives_are_what_the_search_finds_and_no_positive(tmp_path):
    mined = list(mine(GROUPS, WordEncoder(), tmp_path / "index"))
    # The first query's positive scores 3; the other documents with "cat" or "sleeps" 1 and 2, none of them an answer.
    assert set(mined[0].negatives) == {"dog sleeps here", "cat and dog sleeps too"}
    assert mined[1].negatives == ()  # nobody else has a bird
    assert mined[2].negatives == ("the cat sleeps sleeps",) or mined[2].negatives == ()
    assert [group.positives for group in mined] == [group.positives for group in GROUPS]


def test_what_scores_like_the_positive_is_taken_for_an_answer(tmp_path):
    # "the cat sleeps sleeps" scores 2 for the third query, as its positives do: over 0.95 of 2.
    assert list(mine(GROUPS, WordEncoder(), tmp_path / "index"))[2].negatives == ()
    loose = list(mine(GROUPS, WordEncoder(), tmp_path / "loose", Mining(max_share=1.0)))
    assert loose[2].negatives == ("the cat sleeps sleeps",)


def test_negatives_that_are_there_stay_when_asked_and_count(tmp_path):
    kept = list(mine(GROUPS, WordEncoder(), tmp_path / "index", Mining(keep=True, count=2)))
    assert kept[0].negatives[0] == "old" and len(kept[0].negatives) == 2


def test_the_best_ranks_can_be_left_out():
    rows, scores = np.array([4, 7, 2, 9, -1]), np.array([9.0, 8, 5, 4, 0], np.float32)
    assert candidates(rows, scores, {7}, Mining(depth=5)).tolist() == [2, 9]  # 4 beats the answer
    assert candidates(rows, scores, {7}, Mining(depth=5, skip=3)).tolist() == [9]
    assert candidates(rows, scores, {1}, Mining(depth=5)).tolist() == [4, 7, 2, 9]  # the answer was not found


def test_the_seed_decides_the_drawing(tmp_path):
    documents = [Group(f"cat {i}", (f"cat cat cat {i}",)) for i in range(3)]
    pool = [Group("fish", ("fish", *(f"cat {i}" for i in range(30))))]
    drawn = [
        [g.negatives for g in mine(documents + pool, WordEncoder(), tmp_path / f"i{n}", Mining(seed=seed, count=3))]
        for n, seed in enumerate((1, 1, 2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_documents_are_counted_while_they_are_indexed_and_no_groups_need_no_index(tmp_path):
    told = []
    list(mine(GROUPS, WordEncoder(), tmp_path / "index", on_documents=told.append))
    assert told == [5]
    assert list(mine([], WordEncoder(), tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("wrong", "told"), [({"count": 0}, "count >= 1"), ({"depth": 3, "skip": 3}, "skip < depth"),
                                            ({"max_share": 0}, r"max_share must be in \(0, 1\]")])  # fmt: skip
def test_impossible_settings_are_refused(wrong, told):
    with pytest.raises(BadInput, match=told):
        Mining(**wrong)
