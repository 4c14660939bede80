"""Recipes: TOML and flags."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.errors import BadInput
from polylex.train.recipe import AlignConfig, DistillConfig, read_recipe, write_recipe

SMALLEST = 'model = "m"\nteacher = "t"\ntrain_files = ["a.jsonl"]\noutput_dir = "out"\n'
FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted([*FOLDER.glob("align-*.toml"), *FOLDER.glob("distill-*.toml")])


def recipe(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_override_the_file_and_take_its_types(tmp_path):
    path = recipe(tmp_path, SMALLEST + "learning_rate = 1\nbf16 = false\n")
    config = read_recipe(
        AlignConfig, path, {"max-steps": "7", "bf16": "True", "train_files": "a.jsonl,b.jsonl", "l1": "1e-3"}
    )
    assert (config.max_steps, config.bf16, config.train_files) == (7, True, ("a.jsonl", "b.jsonl"))
    assert config.learning_rate == 1.0 and config.l1 == 1e-3


def test_an_unknown_setting_is_refused_with_the_nearest_known_one(tmp_path):
    with pytest.raises(BadInput, match=r"recipe.toml: unknown setting 'learing_rate', did you mean 'learning_rate'\?"):
        read_recipe(AlignConfig, recipe(tmp_path, SMALLEST + "learing_rate = 1e-4\n"))
    with pytest.raises(BadInput, match="unknown setting 'max_step', did you mean 'max_steps'"):
        read_recipe(AlignConfig, recipe(tmp_path, SMALLEST), {"max-step": "3"})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("max_steps = 1.5", "max_steps must be a whole number, got 1.5"),
        ("max_steps = true", "max_steps must be a whole number, got True"),
        ("bf16 = 1", "bf16 must be true or false"),
        ('teacher_speakers = "some"', "teacher_speakers must be one of 'all', 'content'"),
        ('eval_folders = "one"', "eval_folders must be a list of texts"),
        ("max_steps = 0", "max_steps must be at least 1, got 0"),
        ("warmup_ratio = 2", "warmup_ratio must be between 0 and 1, got 2"),
        ("language_temperature = 0.5", "language_temperature must be at least 1"),
        ("[source_weights]\nbible = -1", "source_weights.bible must be a number of at least 0"),
        ("max_steps = ", "is not TOML"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(tmp_path, line, told):
    with pytest.raises(BadInput, match=told):
        read_recipe(AlignConfig, recipe(tmp_path, SMALLEST + line + "\n"))


def test_a_missing_setting_is_named(tmp_path):
    with pytest.raises(BadInput, match="does not set train_files, output_dir"):
        read_recipe(DistillConfig, recipe(tmp_path, 'model = "m"\n'))
    with pytest.raises(BadInput, match="train_files is empty"):
        AlignConfig(model="m", train_files=(), output_dir="o", teacher="t")


def test_one_file_may_hold_both_stages(tmp_path):
    path = recipe(
        tmp_path,
        'model = "m"\ntrain_files = ["a"]\n[align]\noutput_dir = "one"\nteacher = "t"\nmax_steps = 1\n'
        '[distill]\noutput_dir = "two"\nmax_steps = 2\n',
    )
    assert read_recipe(AlignConfig, path).output_dir == "one"
    assert read_recipe(DistillConfig, path).max_steps == 2


@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    number=st.floats(0, 1e6, allow_nan=False),
    steps=st.integers(1, 10**9),
    weights=st.dictionaries(st.text(alphabet="abc-. é", min_size=1), st.floats(0, 9, allow_nan=False)),
)
def test_a_recipe_written_and_read_is_the_same(tmp_path_factory, text, number, steps, weights):
    config = AlignConfig(
        model=text, train_files=(text, "b"), output_dir="o", teacher="t", l1=number, max_steps=steps,
        source_weights=weights, eval_folders=(),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    write_recipe(config, path)
    assert read_recipe(AlignConfig, path) == config


@pytest.mark.parametrize("kind", [AlignConfig, DistillConfig])
def test_every_setting_is_documented_and_read_somewhere(kind):
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (Path(__file__).parent.parent / "src/polylex/train").glob("*.py")
        if path.name != "recipe.py"
    )
    documented = (kind.__doc__ or "") + (kind.__mro__[1].__doc__ or "")
    for setting in dataclasses.fields(kind):
        name = setting.name
        assert f".{name}" in source or f'"{name}"' in source, f"{name} is never read"
        assert name in documented, f"{name} is not documented"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_recipes_of_the_repository_are_valid(path):
    kind = AlignConfig if path.name.startswith("align") else DistillConfig
    assert read_recipe(kind, path).max_steps > 0


def test_there_are_recipes():
    assert len(RECIPES) >= 4
