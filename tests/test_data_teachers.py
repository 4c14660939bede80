import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import BertConfig, BertModel  # noqa: E402

from polylex.errors import BadInput, BadModel, MissingExtra  # noqa: E402
from polylex.train.data import Group  # noqa: E402
from polylex.train.teachers import DenseTeacher, cross_encoder_scores, score_groups  # noqa: E402

WORDS = ["<pad>", "<s>", "</s>", "query:", "red", "green", "blue", "sky", "grass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dense")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(WORDS[:3])
    tokenizer.save(str(path / "tokenizer.json"))
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
            pad_token_id=0,
        )
    )
    model.save_pretrained(path)
    return path


def by_definition(folder, text):
    """The mean of the last states of <s> text </s>, alone in its batch, scaled to length 1."""
    model = BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[1, *(WORDS.index(word) for word in text.split()), 2]])
    with torch.no_grad():
        mean = model(input_ids=ids).last_hidden_state[0].mean(dim=0)
    return (mean / mean.norm()).numpy()


def test_a_vector_is_the_mean_of_the_last_states_whatever_else_is_in_the_batch(folder):
    teacher = DenseTeacher.read(folder)
    texts = ["red", "blue sky green grass blue sky", "", "sky blue"]
    vectors = teacher.embed(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (4, 16)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, by_definition(folder, text), atol=1e-6)
    np.testing.assert_allclose(teacher.embed(texts, batch_tokens=8), vectors, atol=1e-6)


def test_the_prompt_stands_before_queries_only(folder):
    teacher = DenseTeacher.read(folder, query_prompt="query: ")
    np.testing.assert_allclose(teacher.embed(["red"], "query")[0], by_definition(folder, "query: red"), atol=1e-6)
    np.testing.assert_allclose(teacher.embed(["red"])[0], by_definition(folder, "red"), atol=1e-6)


def test_long_texts_are_cut_to_what_the_encoder_reads(folder):
    teacher = DenseTeacher.read(folder)
    np.testing.assert_allclose(
        teacher.embed(["red " * 99])[0], by_definition(folder, " ".join(["red"] * 30)), atol=1e-6
    )


def test_no_texts_give_no_vectors_and_progress_is_told(folder):
    told = []
    assert len(DenseTeacher.read(folder).embed([])) == 0
    DenseTeacher.read(folder).embed(["red"] * 3, on_texts=told.append)
    assert told == [3]


def test_groups_are_scored_by_cosines(folder):
    teacher = DenseTeacher.read(folder)
    group = Group("red", ("red", "blue sky"), ("grass",), language="en")
    (scored,) = score_groups([group], teacher.scores)
    red, sky, grass = (by_definition(folder, text) for text in ("red", "blue sky", "grass"))
    assert scored.positive_scores == pytest.approx((1.0, float(red @ sky)), abs=1e-6)
    assert scored.negative_scores == pytest.approx((float(red @ grass),), abs=1e-6)
    assert (scored.query, scored.positives, scored.language) == (group.query, group.positives, "en")


def test_scores_go_to_their_own_documents_over_batches():
    groups = [Group(f"q{i}", (f"p{i}",), tuple(f"n{i}{j}" for j in range(i))) for i in range(5)]
    asked = []

    def score(pairs):
        asked.append(len(pairs))
        return [len(document) + 10 * int(query[1]) for query, document in pairs]

    scored = list(score_groups(groups, score, batch_groups=2))
    assert asked == [3, 7, 5]
    assert [group.negative_scores for group in scored] == [tuple(3.0 + 10 * i for _ in range(i)) for i in range(5)]


@pytest.mark.parametrize("wrong", [[1.0], [1.0, float("nan")]])
def test_a_teacher_that_gives_too_few_or_no_numbers_is_refused(wrong):
    with pytest.raises(BadInput, match="scores for 2 documents"):
        list(score_groups([Group("q", ("p",), ("n",))], lambda pairs: wrong))


def test_a_folder_without_an_encoder_is_refused(folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(BadModel, match="cannot be read as an encoder"):
        DenseTeacher.read(tmp_path)


def test_without_sentence_transformers_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match="pip install"):
        cross_encoder_scores("anywhere")
