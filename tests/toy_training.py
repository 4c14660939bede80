"""Toys for the tests of training: three languages of 24 words each, a tiny model, a teacher that knows English."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from polylex.config import ModelConfig
from polylex.model.model import SparseModel
from polylex.runtime.tokens import Tokens
from polylex.train.data import Group, Groups, Pair, Pairs, Tokenization
from polylex.train.teacher import Teacher

torch.set_num_threads(1)  # toys are slower on more

WORDS = 24
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
LANGUAGES = ("de", "zh")
PIVOT = tuple(f"en{i}" for i in range(WORDS)) + tuple(f"spare{i}" for i in range(8))


def tokens(words):
    names = SPECIAL + list(words)
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(SPECIAL[:3])
    return Tokens(tokenizer)


def student_tokens():
    return tokens(f"{language}{i}" for language in ("en", *LANGUAGES) for i in range(WORDS))


def english_tokens():
    return tokens(f"en{i}" for i in range(WORDS))


def model(seed=0, *, dropout=0.0, bias=-1.0, echo="encoder"):
    torch.manual_seed(seed)
    encoder = {
        "model_type": "bert", "vocab_size": 4 + 3 * WORDS, "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0,
        "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "attn_implementation": "eager",
    }  # fmt: skip
    config = ModelConfig(
        name="toy", encoder=encoder, pivot_size=len(PIVOT), pivot_width=16, pivot_vocabulary="pivot.txt",
        echo_placement=echo, pivot_speakers="content", max_length=64, stride=8,
    )  # fmt: skip
    made = SparseModel(config, student_tokens(), PIVOT)
    nn.init.constant_(made.pivot_head.decoder.bias, bias)
    if made.source_head is not None:
        nn.init.constant_(made.source_head.linear.bias, 0.1)
    return made


class _OneHot(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.eye(4 + WORDS))

    def forward(self, batch):
        return self.embedding(batch.ids)


def teacher():
    """Gives every English word of a text the raw maximum 2, every other term -2."""
    decoder = nn.Linear(4 + WORDS, len(PIVOT))
    nn.init.constant_(decoder.weight, 0.0)
    nn.init.constant_(decoder.bias, -2.0)
    with torch.no_grad():
        decoder.weight[:WORDS, 4:] = 4 * torch.eye(WORDS)
    made = Teacher(_OneHot(), decoder, english_tokens(), 0, "content")
    made.limit = 64
    return made


def sentence(language, numbers):
    return " ".join(f"{language}{number}" for number in numbers)


def some_pairs(count=200, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        numbers = rng.integers(0, WORDS, int(rng.integers(2, 7)))
        language = LANGUAGES[index % 2]
        made.append(Pair(sentence("en", numbers), sentence(language, numbers), language, f"s{index % 3}"))
    return made


def some_groups(count=120, seed=0, negatives=3):
    """Query: two words; the positive has both and others, in another language; negatives have neither."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        asked, rest = np.split(rng.permutation(WORDS), [2])
        language, other = LANGUAGES if index % 2 else LANGUAGES[::-1]
        wrong = tuple(sentence(other, rng.choice(rest, 4)) for _ in range(index % (negatives + 1)))
        right = sentence(other, [*asked, *rest[:2]])
        made.append(Group(sentence(language, asked), (right,), wrong, (8.0,), tuple(1.0 + i for i in range(len(wrong))),
                          language, "toys"))  # fmt: skip
    return made


def pairs(folder, rows=None):
    student = Tokenization(student_tokens())
    return Pairs.write(folder, some_pairs() if rows is None else rows, student, teacher=Tokenization(english_tokens()))


def groups(folder, rows=None, vectors=True):
    student = Tokenization(student_tokens())
    made = Groups.write(folder, some_groups() if rows is None else rows, query=student, document=student)
    if vectors:
        rng = np.random.default_rng(0)
        of_word = rng.normal(size=(WORDS, 16))

        def encoded(which):
            return np.array([
                np.sum([of_word[int(w[2:])] for w in text.split()], axis=0) for text in Groups.texts(folder, which)
            ])  # fmt: skip

        Groups.write_vectors(folder, queries=encoded("queries"), documents=encoded("documents"))
        made = Groups.open(folder)
    return made


def write_jsonl(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
