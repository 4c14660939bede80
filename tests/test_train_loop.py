"""The loop, both stages, on the CPU at toy size."""

import itertools
import json
import math

import pytest

torch = pytest.importorskip("torch")

import toy_training as toy  # noqa: E402

from polylex.errors import BadInput, CollapsedRun, DivergedRun  # noqa: E402
from polylex.model.model import SparseModel  # noqa: E402
from polylex.train import checkpoint, loop  # noqa: E402
from polylex.train.align import Align  # noqa: E402
from polylex.train.distill import Distill, Probe  # noqa: E402
from polylex.train.loop import Loop, parameter_groups, run, schedule  # noqa: E402
from polylex.train.ranks import Ranks  # noqa: E402
from polylex.train.recipe import AlignConfig, DistillConfig  # noqa: E402

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return toy.pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    return toy.groups(tmp_path_factory.mktemp("groups"))


def shared(folder, **settings):
    return {
        "model": "toy", "train_files": ("toy",), "output_dir": str(folder), "bf16": False, "bucket_rows": 64,
        "logging_steps": 0, "save_steps": 0, "dataloader_num_workers": 2, "learning_rate": 1e-2,
        "encoder_learning_rate": 5e-3, "embedding_learning_rate": 1e-2, **settings,
    }  # fmt: skip


def align_config(folder, **settings):
    return AlignConfig(**{
        **shared(folder), "teacher": "toy", "tokens_per_batch": 300, "max_length": 64, "concat_tokens": 24,
        "concat_share": 0.3, "flops": 1e-3, "l1": 1e-4, **settings,
    })  # fmt: skip


def distill_config(folder, **settings):
    return DistillConfig(**{
        **shared(folder), "per_device_train_batch_size": 8, "negatives": 2, "query_max_length": 32,
        "document_max_length": 64, "kl_weight": 0.3, "margin_mse_weight": 0.01, "flops_query": 1e-3,
        "flops_document": 1e-3, **settings,
    })  # fmt: skip


def aligning(config, pairs, model=None):
    return Align(config, model or toy.model(), toy.teacher(), pairs, ALONE)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(mine, theirs):
    assert mine.keys() == theirs.keys()
    return [name for name in mine if not torch.equal(mine[name], theirs[name])]


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# -- both stages learn -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligned(tmp_path_factory, pairs):
    """A model after stage 1."""
    folder = tmp_path_factory.mktemp("align")
    config = align_config(folder, max_steps=250, logging_steps=50, concat_share=0.1)
    result = run(aligning(config, pairs), config, ALONE)
    return folder, result


def test_alignment_teaches_every_language_the_teachers_words(aligned):
    folder, result = aligned
    assert result.steps == 250
    first, *_, last = lines(folder)
    assert last["loss"] < first["loss"] / 2
    assert last["monitor"]["all"]["teacher"] > 0.7 and last["monitor"]["all"]["translation"] > 0.7
    assert set(last["monitor"]["languages"]) == {"de", "zh", "english"}
    model = SparseModel.from_pretrained(result.model)
    for text in ("de5 de9", "zh5 zh9", "en5 en9"):
        best = [name for name, _ in model.encode_query([text]).decode(model.vocab, top_k=2)[0]]
        assert set(best) == {"e_en5", "e_en9"}


def test_distillation_ranks_the_positive_first_and_stays_grounded(aligned, groups, pairs, tmp_path):
    model = SparseModel.from_pretrained(aligned[1].model)
    config = distill_config(tmp_path, max_steps=60, logging_steps=20)
    stage = Distill(config, model, groups, ALONE, Probe.of(pairs, config, model, toy.teacher()))
    run(stage, config, ALONE)
    first, *_, last = lines(tmp_path)
    assert last["cross_entropy"] < first["cross_entropy"] and last["accuracy"] > 0.6
    assert {"kl", "in_batch_kl", "margin_mse", "l1_query", "flops_document"} <= last.keys()
    assert last["monitor"]["all"]["teacher"] > 0.2
    assert set(last["monitor"]["languages"]) == {"de", "zh", "documents"}


def test_stage_1s_loss_keeps_the_terms_of_stage_2_grounded(aligned, groups, pairs, tmp_path):
    """The same rough run twice: without the loss the vectors leave the teacher, with it they stay."""
    last = {}
    for weight in (0.0, 1.0):
        model = SparseModel.from_pretrained(aligned[1].model)
        folder = tmp_path / str(weight)
        config = distill_config(
            folder, max_steps=60, logging_steps=20, flops_document=0.05, align_weight=weight, monitor_pairs="toy",
            teacher="toy", align_tokens_per_batch=200,
        )  # fmt: skip
        probe = Probe.of(pairs, config, model, toy.teacher())
        grounding = aligning(config.as_align(), pairs, model) if weight else None
        run(Distill(config, model, groups, ALONE, probe, grounding), config, ALONE)
        last[weight] = lines(folder)[-1]
    assert last[1.0]["monitor"]["all"]["teacher"] > last[0.0]["monitor"]["all"]["teacher"] + 0.1
    assert "mse_other" in last[1.0] and "mse_other" not in last[0.0]


def test_a_loss_of_stage_1_without_pairs_says_what_is_missing(groups, tmp_path):
    with pytest.raises(BadInput, match="set monitor_pairs and teacher"):
        Distill(distill_config(tmp_path, align_weight=1.0), toy.model(), groups, ALONE)


def test_a_run_without_stage_1_is_stopped(groups, pairs, tmp_path):
    model = toy.model(3)
    config = distill_config(tmp_path, max_steps=60, logging_steps=20)
    stage = Distill(config, model, groups, ALONE, Probe.of(pairs, config, model, toy.teacher()))
    with pytest.raises(CollapsedRun, match=r"step 20: 0\.0\d+ is the overlap with the English teacher: .*not grounded"):
        run(stage, config, ALONE)
    assert not (tmp_path / "model").exists()


# -- exact continuation ------------------------------------------------------------------------------


def halted(stage, config, steps):
    """A run that is killed after so many steps."""
    killed = Loop(stage, config, ALONE)
    killed.start(False)
    killed.model.train()
    list(itertools.islice(killed.steps(), steps))


@pytest.mark.parametrize("stage", ["align", "distill"])
def test_a_killed_run_continues_bit_equal(stage, pairs, groups, tmp_path):
    def made(folder):
        model = toy.model(dropout=0.2)
        settings = {"max_steps": 9, "save_steps": 3, "dropout": 0.2, "gradient_accumulation_steps": 2}
        if stage == "align":
            config = align_config(folder, **settings)
            return aligning(config, pairs, model), config
        config = distill_config(folder, **settings)
        return Distill(config, model, groups, ALONE), config

    whole, config = made(tmp_path / "whole")
    run(whole, config, ALONE)
    killed, config = made(tmp_path / "killed")
    halted(killed, config, 5)  # two steps after its last checkpoint
    torch.manual_seed(12345)
    again, config = made(tmp_path / "killed")
    result = run(again, config, ALONE, resume=True)
    assert result.steps == 9
    assert same(weights(again.model), weights(whole.model)) == []


def test_resuming_a_finished_run_changes_nothing(aligned, pairs):
    folder, result = aligned
    before = weights(SparseModel.from_pretrained(result.model))
    config = align_config(folder, max_steps=250, logging_steps=50, concat_share=0.1)
    assert run(aligning(config, pairs, toy.model(5)), config, ALONE, resume=True).steps == 250
    assert same(weights(SparseModel.from_pretrained(result.model)), before) == []


def test_a_run_does_not_overwrite_another_nor_continue_with_other_data(aligned, pairs):
    folder, _ = aligned
    config = align_config(folder, max_steps=260, concat_share=0.1)
    with pytest.raises(BadInput, match="holds checkpoint-250; continue it with --resume"):
        run(aligning(config, pairs), config, ALONE)
    other = align_config(folder, max_steps=260, seed=43, concat_share=0.1)
    with pytest.raises(BadInput, match="made with other seed"):
        run(aligning(other, pairs), other, ALONE, resume=True)
    other = align_config(folder, max_steps=260, concat_share=0.9)
    with pytest.raises(BadInput, match="made with other concat_share"):
        run(aligning(other, pairs), other, ALONE, resume=True)


def test_a_checkpoint_is_a_model_and_old_ones_go(pairs, tmp_path):
    config = align_config(tmp_path, max_steps=6, save_steps=2, save_total_limit=2)
    stage = aligning(config, pairs)
    run(stage, config, ALONE)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-6"]
    opened = SparseModel.from_pretrained(tmp_path / "checkpoint-6")
    assert same(weights(opened), weights(stage.model)) == []


def test_a_checkpoint_that_was_cut_off_is_named_and_half_written_ones_are_not_seen(pairs, tmp_path):
    config = align_config(tmp_path, max_steps=2)
    run(aligning(config, pairs), config, ALONE)
    (tmp_path / "checkpoint-9").mkdir()
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["checkpoint-2"]
    state = tmp_path / "checkpoint-2" / "training.pt"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(BadInput, match="checkpoint-2 cannot be read"):
        run(aligning(config, pairs), config, ALONE, resume=True)


# -- stopping ----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_the_run_and_spares_the_checkpoint(pairs, tmp_path, monkeypatch):
    config = align_config(tmp_path, max_steps=20, save_steps=2)
    stage = aligning(config, pairs)
    honest, calls = stage.loss, itertools.count()

    def broken(batch, factor):
        value, figures = honest(batch, factor)
        return (value * math.nan if next(calls) == 4 else value), figures

    monkeypatch.setattr(stage, "loss", broken)
    with pytest.raises(DivergedRun, match=r"step 5: .* nan"):
        run(stage, config, ALONE)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    opened = SparseModel.from_pretrained(tmp_path / "checkpoint-4")
    assert all(tensor.isfinite().all() for tensor in opened.state_dict().values())


def test_a_spoiled_last_step_is_never_saved(pairs, tmp_path, monkeypatch):
    config = align_config(tmp_path, max_steps=3)
    stage = aligning(config, pairs)
    honest, calls = stage.loss, itertools.count()
    monkeypatch.setattr(stage, "loss", lambda b, f: (honest(b, f)[0] * (math.inf if next(calls) == 2 else 1), {}))
    with pytest.raises(DivergedRun):
        run(stage, config, ALONE)
    assert checkpoint.checkpoints(tmp_path) == [] and not (tmp_path / "model").exists()


def test_minutes_end_a_run_before_its_steps_do(pairs, tmp_path):
    config = align_config(tmp_path, max_steps=10**6, max_minutes=0.01)
    result = run(aligning(config, pairs), config, ALONE)
    assert 1 <= result.steps < 10**6 and result.seconds >= 0.6


# -- evaluation --------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_kept(pairs, tmp_path):
    figures = iter([0.2, 0.9, 0.4, 0.5])
    seen = []

    def evaluate(model):
        seen.append(weights(model))
        return {"toy": next(figures)}

    config = align_config(tmp_path, max_steps=8, eval_steps=2)
    result = run(aligning(config, pairs), config, ALONE, evaluate=evaluate)
    assert result.best == 0.9 and len(seen) == 4  # at 2, 4, 6 and at the end
    assert same(weights(SparseModel.from_pretrained(tmp_path / "best")), seen[1]) == []
    measured = [line for line in lines(tmp_path) if "evaluation" in line]
    assert [line["step"] for line in measured] == [2, 4, 6, 8]
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-8"]


# -- parts -------------------------------------------------------------------------------------------


def test_the_schedule_rises_and_falls():
    assert schedule(0.0, 0.1, 0) == 1e-3
    assert schedule(0.05, 0.1, 5) == pytest.approx(0.5)
    assert schedule(0.1, 0.1, 9) == pytest.approx(1.0)
    assert schedule(0.55, 0.1, 9) == pytest.approx(0.5)
    assert schedule(1.0, 0.1, 9) == pytest.approx(0.0)


def test_each_part_of_the_model_has_its_learning_rate_and_vectors_do_not_decay(tmp_path):
    model = toy.model()
    config = align_config(tmp_path, learning_rate=3.0, encoder_learning_rate=2.0, embedding_learning_rate=1.0)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    rate, decay = {}, {}
    for group in parameter_groups(model, config):
        for parameter in group["params"]:
            rate[name_of[id(parameter)]], decay[name_of[id(parameter)]] = group["lr"], group["weight_decay"]
    assert rate.keys() == set(name_of.values())
    assert rate["pivot_head.decoder.weight"] == rate["connector.linear.bias"] == rate["source_head.scale"] == 3.0
    assert rate["encoder.transformer.embeddings.word_embeddings.weight"] == 1.0
    assert rate["encoder.transformer.encoder.layer.0.attention.self.query.weight"] == 2.0
    assert decay["pivot_head.decoder.bias"] == decay["pivot_head.norm.weight"] == 0.0
    assert decay["pivot_head.decoder.weight"] == config.weight_decay


def test_a_part_with_learning_rate_0_stays_as_it_is(pairs, tmp_path):
    model = toy.model()
    before = weights(model)
    config = align_config(tmp_path, max_steps=2, encoder_learning_rate=0.0, embedding_learning_rate=0.0)
    run(aligning(config, pairs, model), config, ALONE)
    changed = same(weights(model), before)
    assert changed and not any(name.startswith("encoder.") for name in changed)


def test_stage_1_leaves_the_source_view_alone(aligned):
    trained, fresh = SparseModel.from_pretrained(aligned[1].model), toy.model()
    assert torch.equal(trained.source_head.linear.weight, fresh.source_head.linear.weight)


def test_losses_that_need_a_teacher_say_what_is_missing(tmp_path):
    bare = toy.groups(tmp_path / "g", [toy.Group("de1", ("zh1",))], vectors=False)
    with pytest.raises(BadInput, match="needs vectors of a dense teacher"):
        Distill(distill_config(tmp_path, kl_weight=0.0), toy.model(), bare, ALONE)
    with pytest.raises(BadInput, match="need pos_scores"):
        Distill(distill_config(tmp_path, in_batch_kl_weight=0.0), toy.model(), bare, ALONE)


def test_the_numbers_of_a_log_line_are_found_in_depth():
    line = {"step": 3, "monitor": {"all": {"terms": 4.0, "teacher": None}, "always_on": [["e_x", 0.7]]}}
    assert dict(loop.flat(line)) == {"step": 3.0, "monitor/all/terms": 4.0}


@pytest.mark.parametrize("which", ["align", "distill"])
def test_a_step_mixes_no_devices(which, pairs, groups, tmp_path, monkeypatch):
    """Tensors on "meta" stand for a GPU's: PyTorch refuses to mix them with the CPU's."""
    import contextlib

    from transformers import masking_utils

    def nothing(*_, **__):
        return contextlib.nullcontext()

    monkeypatch.setattr(torch, "autocast", nothing)  # it knows no such device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    # It looks whether a batch has padding, which tensors without values cannot say.
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_, **__: False, raising=False)
    away = Ranks(0, 1, torch.device("meta"))
    model = toy.model()
    stage = (
        Align(align_config(tmp_path), model, toy.teacher(), pairs, away)
        if which == "align"
        else Distill(distill_config(tmp_path), model, groups, away)
    )
    model.to("meta")
    loss, figures = stage.loss(stage.build(stage.plan(0)[0]), 0.5)
    assert {value.device.type for value in (loss, *figures.values())} == {"meta"}
