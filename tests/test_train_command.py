"""`polylex train`: from JSONL and folders to a model, through the command line."""

import dataclasses
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import toy_training as toy  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from polylex.errors import BadInput  # noqa: E402
from polylex.model.model import SparseModel  # noqa: E402
from polylex.train import session  # noqa: E402
from polylex.train.card import DataFacts, training_card  # noqa: E402
from polylex.train.command import train  # noqa: E402
from polylex.train.ranks import Ranks  # noqa: E402
from polylex.train.recipe import AlignConfig, read_recipe  # noqa: E402

RECIPES = Path(__file__).parent.parent / "recipes"
# The toy teacher knows no English: that is what the monitor would stop for.
BRIEF = ["--max-steps", "4", "--logging-steps", "2", "--monitor-min-teacher", "0", "--monitor-min-translation", "0",
         "--monitor-max-empty", "1"]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with all that the toy recipes name."""
    from transformers import BertConfig, BertForMaskedLM

    monkeypatch.chdir(tmp_path)
    toy.model(bias=0.0).save_pretrained(tmp_path / "start")
    torch.manual_seed(1)
    settings = BertConfig(vocab_size=len(toy.PIVOT), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=16, max_position_embeddings=64)  # fmt: skip
    BertForMaskedLM(settings).save_pretrained("teacher")
    (tmp_path / "teacher" / "tokenizer.json").write_text(toy.english_tokens().to_json(), encoding="utf-8")
    toy.write_jsonl("pairs.jsonl", [
        {"english": p.english, "non_english": p.non_english, "lang": p.language, "source": p.source}
        for p in toy.some_pairs()
    ])  # fmt: skip
    toy.write_jsonl("groups.jsonl", [
        {"query": g.query, "pos": g.positives, "neg": g.negatives, "pos_scores": g.positive_scores,
         "neg_scores": g.negative_scores, "lang": g.language} for g in toy.some_groups()
    ])  # fmt: skip
    return tmp_path


def polylex(*arguments):
    return CliRunner().invoke(train, list(arguments), catch_exceptions=False)


def test_both_stages_run_from_the_toy_recipes(place):
    done = polylex("align", "--config", str(RECIPES / "align-toy.toml"), *BRIEF)
    assert done.exit_code == 0, done.output
    assert "step       2" in done.output and "runs/align-toy/model: 4 steps" in done.output
    done = polylex("distill", "--config", str(RECIPES / "distill-toy.toml"), *BRIEF, "--json")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["step"] for line in done.output.splitlines()] == [2, 4]
    model = SparseModel.from_pretrained("runs/distill-toy/model")
    assert model.encode_query(["de1 zh2"]).nnz > 0
    card = Path("runs/distill-toy/model/README.md").read_text(encoding="utf-8")
    assert "polylex train distill" in card and "| unnamed | 120 | not stated |" in card and "de 60" in card
    recipe = Path("runs/distill-toy/recipe.toml")
    assert "max_steps = 4" in recipe.read_text(encoding="utf-8")


def test_a_run_resumes_and_its_tokens_are_not_made_again(place):
    flags = ["align", "--config", str(RECIPES / "align-toy.toml"), *BRIEF]
    polylex(*flags, "--save-steps", "2")
    (cache,) = Path("runs/align-toy/cache").iterdir()
    made = (cache / "english.tokens").stat().st_mtime_ns
    with pytest.raises(BadInput, match="continue it with --resume"):
        polylex(*flags)
    done = polylex(*flags, "--resume", "--max-steps", "6")
    assert "step       6" in done.output and "step       2" not in done.output
    assert (cache / "english.tokens").stat().st_mtime_ns == made


def test_a_dry_run_counts_and_trains_nothing(place):
    done = polylex("align", "--config", str(RECIPES / "align-toy.toml"), "--dry-run", "--json")
    table = json.loads(done.output)
    assert table["steps"] == 120 and table["rows_per_step"] > 10
    assert table["tokens_per_step"] <= table["padded_tokens_per_step"]
    assert table["total_tokens"] == pytest.approx(120 * table["tokens_per_step"])
    parameters = sum(p.numel() for n, p in toy.model().named_parameters() if not n.startswith("source_head"))
    assert table["parameters"] == parameters and table["memory_bytes"] > 16 * parameters
    assert not Path("runs/align-toy/model").exists() and not Path("runs/align-toy/recipe.toml").exists()
    told = polylex("align", "--config", str(RECIPES / "align-toy.toml"), "--dry-run").output
    assert "memory of a GPU" in told and "tokens a step" in told


def test_an_unknown_flag_is_a_usage_error_and_an_unknown_key_names_the_nearest(place):
    done = CliRunner().invoke(train, ["align", "--max-stepz", "3"])
    assert done.exit_code == 2 and "--max-steps" in done.output
    (place / "r.toml").write_text("max_stepz = 3\n", encoding="utf-8")
    with pytest.raises(BadInput, match="did you mean 'max_steps'"):
        polylex("align", "--config", "r.toml")


def config(**settings):
    return dataclasses.replace(read_recipe(AlignConfig, RECIPES / "align-toy.toml"), **settings)


def test_an_empty_file_among_others_is_passed_over_and_nothing_at_all_is_refused(place):
    Path("empty.jsonl").touch()
    ranks = Ranks(0, 1, torch.device("cpu"))
    stage = session.align_stage(config(train_files=("empty.jsonl", "pairs.jsonl")), ranks)
    assert len(stage.pairs) == 200
    with pytest.raises(BadInput, match="no pairs"):
        session.align_stage(config(train_files=("empty.jsonl",)), ranks)
    with pytest.raises(BadInput, match=r"none\.jsonl does not exist"):
        session.align_stage(config(train_files=("none.jsonl",)), ranks)
    with pytest.raises(BadInput, match=r"start is a folder; give one folder that holds pairs\.rows"):
        session.align_stage(config(train_files=("start",)), ranks)


def test_every_rank_gets_a_row_even_of_very_few(place):
    """A shard is never empty: rows come round again, and batches hold a multiple of the ranks."""
    toy.write_jsonl("pairs.jsonl", [{"english": "en1", "non_english": "de1"}] * 3)
    shares = []
    for rank in range(4):
        stage = session.align_stage(config(bucket_rows=8), Ranks(0, 1, torch.device("cpu")))
        stage.ranks = Ranks(rank, 4, torch.device("cpu"))
        shares.append([len(first) for first, _ in stage.plan(0)])
    assert shares[0] and all(share == shares[0] and min(share) >= 1 for share in shares)


def test_texts_longer_than_the_model_reads_are_refused(place):
    with pytest.raises(BadInput, match="max_length is 65, the model reads 64"):
        session.align_stage(config(max_length=65), Ranks(0, 1, torch.device("cpu")))


def test_a_card_tells_data_licences_and_figures(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(
        json.dumps({"step": 5, "evaluation": {"xquad": 0.71234}, "evaluation_mean": 0.71234}) + "\n"
        + json.dumps({"step": 9, "monitor": {"all": {"terms": 87.5}}}) + "\n",
        encoding="utf-8",
    )  # fmt: skip
    facts = DataFacts({("de", "bible"): 1200, ("zh", "bible"): 300, ("zh", "udhr"): 7}, {"bible": "public domain"})
    recipe = config(output_dir=str(tmp_path))
    text = training_card(toy.model().config, recipe, facts, licence="apache-2.0", limits="Weak in Thai.")
    for told in ("| bible | 1,500 | public domain |", "| udhr | 7 | not stated |", "de 1,200, zh 307", "87.5",
                 "| xquad | 0.7123 |", "license: apache-2.0", "Weak in Thai.", "polylex train align"):  # fmt: skip
        assert told in text
