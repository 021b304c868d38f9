"""Reading recipes: what they may say, and what is said of a wrong one."""

import pytest

from neft_zoo import NoiseError
from neft_zoo.config import recipe


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_extends_replaces_whole_options_and_may_chain(write):
    write("top.yaml", "seed: 1\nlearning_rate: 0.1\nnoise: {name: neft_uniform, alpha: 3}\n")
    write("middle.yaml", "extends: top.yaml\nseed: 2\n")
    found = recipe.load(write("bottom.yaml", "extends: middle\nnoise: {name: symnoise}\n"))
    assert found.values == {"seed": 2, "learning_rate": 0.1, "noise": {"name": "symnoise"}}
    assert found.origin["seed"].endswith("middle.yaml line 2")


def test_a_shipped_recipe_is_found_by_name_and_fills_in_its_folder():
    values = recipe.load("quickstart").values
    assert values["model_name_or_path"] == str(recipe.folder() / "quickstart" / "model")
    assert values["learning_rate"] == 1e-3 and values["packing"] is False
    assert {"base", "quickstart", "paper/llama2-7b-alpaca"} <= set(recipe.names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "line 2: 'seed' is given twice"),
        ("extends: r.yaml\n", "got 'r.yaml'"),
        ("extends: [base]\n", r"extends must be one recipe's name or path, got \['base'\]"),
        ("extends: bsae\n", "got 'bsae'; did you mean base"),
        ("- seed\n", "must be a mapping of options, got list"),
        ("", "must be a mapping of options, got NoneType"),
        ("1: 2\n", "must be a mapping of options"),
        ("seed: [1\n", "must be YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "must be YAML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(write, text, message):
    with pytest.raises(NoiseError, match=message) as caught:
        recipe.load(write("r.yaml", text))
    assert "\n" not in str(caught.value)


def test_a_circle_is_refused_and_a_namesake_is_not(write):
    write("one.yaml", "extends: two\n")
    with pytest.raises(NoiseError, match="must not lead back to the recipe itself, got .*one.yaml"):
        recipe.load(write("two.yaml", "extends: one\n").replace("two", "one"))
    assert recipe.load(write("quickstart.yaml", "extends: quickstart\nseed: 9\n")).values["max_length"] == 256


def test_a_missing_recipe_names_near_ones():
    with pytest.raises(NoiseError, match="got 'quikstart'; did you mean quickstart"):
        recipe.load("quikstart")
