import json
import shutil
import sys

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tiny_milco import EXPECTED, FOLDER, TEXTS, encode, tiny_milco  # noqa: E402

from polylex.errors import BadModel  # noqa: E402
from polylex.model import SparseModel  # noqa: E402
from polylex.model.milco import read_parts, rename  # noqa: E402


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_every_weight_is_the_released_code_s_within_1e_4_in_any_batch(batch_size):
    model = tiny_milco()
    rows = encode(model, TEXTS, batch_size=batch_size).decode(model.vocab)
    for row, expected in zip(rows, EXPECTED, strict=True):
        ours, theirs = dict(row), expected["vector"]
        worst = max(abs(ours.get(name, 0) - theirs.get(name, 0)) for name in ours.keys() | theirs.keys())
        assert worst < 1e-4, expected["text"]


def test_special_tokens_speak_even_for_an_empty_text():
    model = tiny_milco()
    names = dict(encode(model, [""]).decode(model.vocab)[0])
    assert {"m_<s>", "m_</s>"} <= names.keys()
    assert len(names) == len(EXPECTED[TEXTS.index("")]["vector"]) == 1157


def test_sizes_come_from_the_folders_beside_the_checkpoint():
    config = tiny_milco().config
    assert (config.pivot_size, config.pivot_width, config.encoder["hidden_size"]) == (2505, 32, 48)
    assert config.max_length == 64  # the tokenizer's, below the 80 - 2 positions of the encoder
    assert (config.echo_placement, config.pivot_speakers, config.source_speakers) == ("encoder", "all", "all")


@pytest.fixture
def checkpoint(tmp_path):
    """A copy that may be broken."""
    shutil.copytree(FOLDER, tmp_path / "tiny")
    return tmp_path / "tiny" / "release"


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change):
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def test_an_unknown_encoder_is_named_with_the_argument_that_gives_it(checkpoint, tmp_path):
    edit(checkpoint, multilingual_encoder_checkpoint="someone/else")
    with pytest.raises(BadModel, match=r"'someone/else'.*BAAI/bge-m3-unsupervised.*encoder=folder"):
        SparseModel.from_pretrained(checkpoint)
    edit(checkpoint, lsr_encoder_checkpoint="not/here")
    given = {"encoder": checkpoint.parent / "multilingual", "pivot": checkpoint.parent / "lsr"}
    assert SparseModel.from_pretrained(checkpoint, **given).weights_id == tiny_milco().weights_id


def test_the_released_ids_need_no_other_download(checkpoint):
    edit(
        checkpoint, multilingual_encoder_checkpoint="BAAI/bge-m3-unsupervised", lsr_encoder_checkpoint="naver/splade-v3"
    )
    (checkpoint / "tokenizer_config.json").unlink()
    parts = read_parts(checkpoint, "omai-research/milco-650m", None, None)
    config = parts.config
    assert (config.name, config.max_length, config.stride) == ("milco-650m", 8192, 64)
    assert (config.pivot_size, config.pivot_width, config.pivot_vocabulary) == (30522, 768, "bert-base-uncased")
    assert parts.pivot[101] == "[CLS]" and parts.pivot[7592] == "hello"
    with torch.device("meta"):
        model = SparseModel(config, parts.tokens, parts.pivot)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["encoder.transformer.embeddings.word_embeddings.weight"] == (250002, 1024)
    assert shapes["encoder.transformer.encoder.layer.23.intermediate.dense.weight"] == (4096, 1024)
    assert shapes["connector.linear.weight"] == (768, 1024) and shapes["source_head.linear.weight"] == (1, 1024)


def test_an_alignment_checkpoint_has_no_echo_and_its_teacher_is_left_out(checkpoint):
    def align(state):
        for name in ("echo.weight", "echo.bias", "scale"):
            del state[name]
        state["en_lsr.bert.embeddings.word_embeddings.weight"] = torch.zeros(2, 2)

    rewrite(checkpoint, align)
    model = SparseModel.from_pretrained(checkpoint)
    assert model.config.echo_placement == "none"
    whole = encode(tiny_milco(), ["music"]).decode(model.vocab)[0]
    assert encode(model, ["music"]).decode(model.vocab)[0] == [pair for pair in whole if pair[0].startswith("e_")]


def test_missing_and_unknown_weights_are_listed(checkpoint):
    def spoil(state):
        del state["projector.bias"]
        state["surprise.weight"] = torch.zeros(1)
        state["echo.weight"] = torch.zeros(1, 7)

    rewrite(checkpoint, spoil)
    with pytest.raises(BadModel, match=r"1 missing: connector\.linear\.bias; 1 unexpected: surprise\.weight") as fault:
        SparseModel.from_pretrained(checkpoint)
    assert "source_head.linear.weight [1, 7], expected [1, 48]" in str(fault.value)


def test_the_decoder_s_bias_is_found_under_either_of_its_tied_names():
    bias, other = torch.ones(3), torch.zeros(3)
    tied, own = "mlm_head.predictions.bias", "mlm_head.predictions.decoder.bias"
    assert rename({tied: bias})["pivot_head.decoder.bias"] is bias
    assert rename({own: bias, tied: other}).keys() == {"pivot_head.decoder.bias"}
    assert rename({own: bias, tied: other})["pivot_head.decoder.bias"] is bias


class Attack:
    """Unpickled by a careless reader, it leaves a mark."""

    def __reduce__(self):
        return eval, ("__import__('sys').modules.__setitem__('attacked', True)",)


def test_a_pickle_that_runs_code_is_refused(checkpoint):
    torch.save({"scale": Attack()}, checkpoint / "pytorch_model.bin")
    with pytest.raises(BadModel, match="cannot be read as tensors"):
        SparseModel.from_pretrained(checkpoint)
    assert "attacked" not in sys.modules


def test_safetensors_are_preferred_to_a_pickle(checkpoint):
    from safetensors.torch import save_file

    state = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    save_file({name: tensor.clone() for name, tensor in state.items()}, checkpoint / "model.safetensors")
    (checkpoint / "pytorch_model.bin").write_bytes(b"never opened")
    assert SparseModel.from_pretrained(checkpoint).weights_id == tiny_milco().weights_id


def test_a_checkpoint_in_parts_is_read_whole(checkpoint):
    state = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    names = sorted(state)
    parts = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for part, own in parts.items():
        torch.save({name: state[name] for name in own}, checkpoint / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (checkpoint / "pytorch_model.bin").unlink()
    assert SparseModel.from_pretrained(checkpoint).weights_id == tiny_milco().weights_id
    (checkpoint / "pytorch_model-2.bin").unlink()
    with pytest.raises(BadModel, match=r"pytorch_model-2\.bin is missing"):
        SparseModel.from_pretrained(checkpoint)
