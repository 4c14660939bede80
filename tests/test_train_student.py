"""Scores of a batch: over both views, against the definition; and evaluation on BEIR folders."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import toy_training as toy  # noqa: E402

from polylex.errors import BadInput, BadModel  # noqa: E402
from polylex.model.tokens import TokenBatch  # noqa: E402
from polylex.train.batches import Frame, Texts, chunked  # noqa: E402
from polylex.train.beir import BeirHook, best_rows, ndcg  # noqa: E402
from polylex.train.distill import drawn, padded  # noqa: E402
from polylex.train.student import Weights, encode, scores, source_mean  # noqa: E402
from polylex.train.teacher import Teacher  # noqa: E402
from polylex.vectors import SparseVectors  # noqa: E402


def texts(*sentences):
    encoded = toy.student_tokens().content(sentences, toy.Tokenization(toy.student_tokens()).prepare)
    return Texts(np.array([i for ids in encoded for i in ids], np.uint32), np.array([len(ids) for ids in encoded]))


SENTENCES = ("de1 de2 de1", "zh3", "en1 en2 en3 en4 en5 en6 en7 en8 en9 en10", "", "zh3 de1")


def test_chunks_give_what_the_model_gives_text_by_text():
    model = toy.model(bias=0.0)
    found = encode(model, chunked(texts(*SENTENCES), Frame((1,), (2,), 0), 24))
    for row, sentence in enumerate(SENTENCES):
        ((window,),) = model.windows([sentence])
        alone = model(TokenBatch.of([window], 0))
        torch.testing.assert_close(found.peaks[row], alone.peaks[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.weights.echo[row, : len(window.ids)], alone.source[0], rtol=1e-5, atol=1e-6)


def test_scores_are_the_inner_products_of_the_vectors_an_index_gets():
    model = toy.model(bias=0.0)
    torch.nn.init.constant_(model.source_head.linear.bias, 0.7)
    found = encode(model, chunked(texts(*SENTENCES), Frame((1,), (2,), 0), 24)).weights
    vectors = model.encode_query(list(SENTENCES))
    inner = torch.from_numpy(vectors.dot(vectors))
    torch.testing.assert_close(scores(found, found, 4 + 3 * toy.WORDS).detach(), inner, rtol=1e-5, atol=1e-5)


def test_scores_by_hand_with_gradient():
    queries = Weights(torch.tensor([[1.0, 0.0]]), torch.tensor([[5, 7, 5]]), torch.tensor([[1.0, 2.0, 3.0]]))
    echo = torch.tensor([[10.0, 20.0], [30.0, 0.0]], requires_grad=True)
    documents = Weights(torch.tensor([[2.0, 9.0], [0.0, 1.0]]), torch.tensor([[5, 9], [7, 7]]), echo)
    found = scores(queries, documents, 10)
    assert found.tolist() == [[2 + (1 + 3) * 10, 2 * 30]]  # 9 is asked by nobody; 5 is asked with 1 + 3
    found.sum().backward()
    assert echo.grad.tolist() == [[4.0, 0.0], [2.0, 2.0]]


def test_the_mean_of_the_source_view_by_hand():
    texts = Weights(torch.zeros(2, 1), torch.tensor([[1, 1], [2, 0]]), torch.tensor([[1.0, 2.0], [5.0, 0.0]]))
    assert source_mean(texts, 3).tolist() == [0.0, 1.5, 2.5]


def test_documents_are_drawn_without_repeats_and_from_their_row():
    indptr = np.array([0, 3, 3, 10])
    rng = np.random.default_rng(0)
    for _ in range(20):
        chosen = drawn(indptr, np.array([2, 0, 1]), 4, rng)
        assert len(set(chosen[0])) == 4 and set(chosen[0]) <= set(range(3, 10))
        assert sorted(chosen[1].tolist()) == [-1, 0, 1, 2]
        assert chosen[2].tolist() == [-1] * 4
    assert padded(indptr, np.arange(10, dtype=np.uint32), np.array([0, 1])).tolist() == [[0, 1, 2], [-2, -2, -2]]


# -- teachers ----------------------------------------------------------------------------------------


def masked_model(folder):
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    settings = BertConfig(vocab_size=len(toy.PIVOT), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=16, max_position_embeddings=64)  # fmt: skip
    model = BertForMaskedLM(settings).eval()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(toy.english_tokens().to_json(), encoding="utf-8")
    return model


def test_a_masked_language_model_teaches_the_maxima_of_its_logits(tmp_path):
    model = masked_model(tmp_path)
    teacher = Teacher.read(tmp_path)
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    real = ids != 0
    logits = model(input_ids=ids, attention_mask=real.long()).logits.detach()
    expected = logits.masked_fill(~real[..., None], -torch.inf).amax(1)
    chunks = chunked(Texts(np.array([5, 6, 7], np.uint32), np.array([2, 1])), Frame((1,), (2,), 0), 100)
    torch.testing.assert_close(teacher(chunks), expected, rtol=1e-5, atol=1e-5)
    assert teacher.terms == len(toy.PIVOT) and teacher.limit == 64


def test_a_model_of_ours_can_teach(tmp_path):
    model = toy.model(bias=0.0)
    model.save_pretrained(tmp_path / "m")
    teacher = Teacher.read(tmp_path / "m", "content")
    chunks = chunked(texts(*SENTENCES), Frame((1,), (2,), 0), 100)
    torch.testing.assert_close(teacher(chunks), encode(model.eval(), chunks).peaks.detach())


def test_a_folder_without_a_teacher_is_named(tmp_path):
    with pytest.raises(BadModel, match=r"has no config\.json"):
        Teacher.read(tmp_path)


# -- evaluation --------------------------------------------------------------------------------------


def beir(folder, judged=True):
    (folder / "qrels").mkdir(parents=True)
    toy.write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": None, "text": f"zh{i}"} for i in range(12)])
    toy.write_jsonl(folder / "queries.jsonl", [{"_id": f"q{i}", "text": f"zh{i}"} for i in range(3)])
    rows = "".join(f"q{i}\td{i}\t1\n" for i in range(2)) if judged else ""
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows, encoding="utf-8")
    return folder


def test_ndcg_by_hand_and_as_ir_measures_has_it():
    assert ndcg(["a", "b", "c"], {"a": 1, "c": 1}, 10) == pytest.approx((1 + 0.5) / (1 + 1 / math.log2(3)))
    assert ndcg([], {"a": 1}, 10) == 0 and ndcg(["a"], {"a": 0}, 10) == 0
    pytest.importorskip("ir_measures")
    from polylex.evaluation import evaluate

    rng = np.random.default_rng(7)
    names = [f"d{i}" for i in range(30)]
    for _ in range(20):
        grades = {str(d): int(rng.integers(0, 4)) for d in rng.choice(names, 8, replace=False)} | {"d0": 1}
        ranking = [str(d) for d in rng.permutation(names)[:15]]
        run = {"q": [(name, float(-rank)) for rank, name in enumerate(ranking)]}
        assert ndcg(ranking, grades, 10) == pytest.approx(evaluate(run, {"q": grades}, ["nDCG@10"]).mean()["nDCG@10"])


def test_the_best_documents_are_found_block_by_block(monkeypatch):
    rng = np.random.default_rng(3)

    def some(rows):
        dense = np.round(np.maximum(rng.normal(size=(rows, 20)) - 0.5, 0), 3).astype(np.float32)
        return dense, SparseVectors.from_rows(
            [(np.flatnonzero(row).astype(np.uint32), row[row > 0]) for row in dense], "v"
        )

    (asked, queries), (held, documents) = some(7), some(15)
    monkeypatch.setattr("polylex.train.beir._BLOCK", 60)
    for row, found in zip(asked @ held.T, best_rows(queries, documents, 20, 5, torch.device("cpu")), strict=True):
        assert row[found].tolist() == pytest.approx(sorted(row[row > 0], reverse=True)[:5])


def test_the_hook_measures_judged_queries_of_each_folder(tmp_path):
    model = toy.model(bias=-5.0)  # no English term: the source view alone finds the same word
    torch.nn.init.constant_(model.source_head.linear.weight, 0.0)
    hook = BeirHook([str(beir(tmp_path / "one")), str(beir(tmp_path / "two"))], max_length=32)
    assert hook(model) == {"one": 1.0, "two": 1.0}
    torch.nn.init.constant_(model.source_head.linear.bias, -1.0)
    assert hook(model) == {"one": 0.0, "two": 0.0}


def test_a_folder_without_judgments_is_refused_before_training(tmp_path):
    with pytest.raises(BadInput, match="judges no query"):
        BeirHook([str(beir(tmp_path / "x", judged=False))])
