import errno
import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from dataclasses import replace  # noqa: E402

import yaml  # noqa: E402
from tiny_milco import FOLDER, TEXTS, dense, encode, tiny_milco  # noqa: E402

from polylex.config import ModelConfig  # noqa: E402
from polylex.errors import BadInput, BadModel, ModelNotFound, StorageFull  # noqa: E402
from polylex.model import SparseModel, weights  # noqa: E402
from polylex.model.folder import replaced  # noqa: E402


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny_milco().save_pretrained(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that may be broken."""
    shutil.copytree(saved, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_saved_model_reads_back_to_the_same_vectors(saved):
    again = SparseModel.from_pretrained(saved)
    assert not again.training
    assert again.vocab == tiny_milco().vocab
    ours, theirs = (dense(encode(model, TEXTS), len(again.vocab)) for model in (again, tiny_milco()))
    assert abs(ours - theirs).max() == 0


def test_a_folder_holds_just_these_files_and_names_its_weights(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md", "config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json",
        "pivot.txt", "tokenizer.json",
    ]  # fmt: skip
    config = ModelConfig.read(saved)
    assert config.pivot_vocabulary == "pivot.txt"
    assert config.weights_id == tiny_milco().weights_id
    assert len(config.weights_id) == 64


def test_the_card_has_the_front_matter_that_the_hub_reads(saved):
    _, front, body = (saved / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "polylex"
    assert "SparseModel.from_pretrained" in body and tiny_milco().weights_id in body


def test_a_given_card_is_written_as_it_is(tmp_path):
    folder = tiny_milco().save_pretrained(tmp_path / "m", card="# Mine\n")
    assert (folder / "README.md").read_text() == "# Mine\n"


def test_weights_have_one_identity_whatever_they_are_stored_as_and_another_when_one_changes(saved):
    model = SparseModel.from_pretrained(saved)
    before = model.weights_id
    assert model.double().weights_id == before
    with torch.no_grad():
        model.connector.linear.bias[3] += 1e-3
    assert model.weights_id != before


def test_saving_over_a_model_replaces_it_and_leaves_nothing_else(folder):
    (folder / "pivot.txt").write_text("stale")
    tiny_milco().save_pretrained(folder)
    assert SparseModel.from_pretrained(folder).weights_id == tiny_milco().weights_id
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(BadInput, match="is not a model folder"):
        tiny_milco().save_pretrained(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


@pytest.mark.parametrize(("fault", "seen"), [(KeyError("x"), KeyError), (OSError(errno.ENOSPC, "full"), StorageFull)])
def test_a_failure_half_way_leaves_what_was_there(folder, fault, seen):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(seen), replaced(folder) as fresh:
        (fresh / "config.json").write_text("{}")
        raise fault
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_damaged_file_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadModel, match=r"model\.safetensors cannot be read as tensors"):
        SparseModel.from_pretrained(folder)
    path.unlink()
    with pytest.raises(BadModel, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        SparseModel.from_pretrained(folder)


def test_a_missing_vocabulary_or_tokenizer_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadModel, match="tokenizer"):
        SparseModel.from_pretrained(folder)
    (folder / "pivot.txt").unlink()
    with pytest.raises(BadModel, match=r"pivot\.txt"):
        SparseModel.from_pretrained(folder)


def test_weights_of_another_shape_than_config_json_are_refused(folder):
    table = json.loads((folder / "config.json").read_text())
    table["encoder"]["intermediate_size"] = 97
    (folder / "config.json").write_text(json.dumps(table))
    with pytest.raises(BadModel, match=r"of another shape.*\[96, 48\], expected \[97, 48\]"):
        SparseModel.from_pretrained(folder)


def test_settings_of_the_file_s_type_do_not_change_the_model_s(saved):
    model = tiny_milco()
    encoder = {**model.config.encoder, "dtype": "float16", "auto_map": {"AutoModel": "evil.py"}}
    fresh = SparseModel(replace(model.config, encoder=encoder), model.tokens, model.vocab.pivot)
    assert {tensor.dtype for tensor in fresh.state_dict().values()} == {torch.float32}


# -- the hub, without a network: a folder in the layout of its cache --------------------------------


def cached(cache, name, commit, source):
    """Put a folder into a hub cache as snapshot `commit` of repository `name`, on its main branch."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(source, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_id_is_read_from_the_cache_without_a_network(hub, saved, revision):
    cached(hub, "somebody/tiny", COMMIT, saved)
    assert SparseModel.from_pretrained("somebody/tiny", revision=revision).weights_id == tiny_milco().weights_id


def test_a_released_checkpoint_is_read_by_its_hub_id(hub):
    cached(hub, "omai-research/tiny", COMMIT, FOLDER / "release")
    model = SparseModel.from_pretrained("omai-research/tiny", encoder=FOLDER / "multilingual", pivot=FOLDER / "lsr")
    assert model.name == "tiny"
    assert model.weights_id == tiny_milco().weights_id


@pytest.mark.parametrize("name", ["somebody/nothing", "nothing", "/not/there", "a/b/c"])
def test_what_is_not_there_is_not_found(hub, name):
    with pytest.raises(ModelNotFound, match="no model"):
        SparseModel.from_pretrained(name)


def test_only_files_of_a_model_are_asked_for_and_a_pickle_only_without_safetensors(monkeypatch, tmp_path, saved):
    asked = []

    def download(name, revision, allow_patterns, ignore_patterns):
        asked.append(allow_patterns[-1])
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    weights.locate("a/b")
    assert asked == ["*.safetensors", "pytorch_model*.bin"]
    asked.clear()
    (tmp_path / "model.safetensors").touch()
    weights.locate("a/b")
    assert asked == ["*.safetensors"]


def test_pushing_uploads_a_whole_folder(monkeypatch):
    seen = {}

    class Hub:
        def create_repo(self, repo, *, private, exist_ok):
            seen["repo"] = repo, private, exist_ok

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            seen["identity"] = SparseModel.from_pretrained(folder_path).weights_id
            return f"https://hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert tiny_milco().push_to_hub("me/tiny", private=True) == "https://hub/me/tiny"
    assert seen == {"repo": ("me/tiny", True, True), "identity": tiny_milco().weights_id}


def test_a_full_disk_is_told_and_leaves_the_old_model(folder, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(StorageFull, match="what stood there is untouched"):
        tiny_milco().save_pretrained(folder)
    assert SparseModel.from_pretrained(folder).weights_id == tiny_milco().weights_id
