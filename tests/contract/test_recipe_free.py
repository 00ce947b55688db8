"""A recipe's own words stand in its folder: no tag, term name, tool name or ability string of a
recipe occurs in the code of the rest of the library.

The words are read off the recipes themselves, so that a new recipe is covered at once. Docstrings
and comments may mention a recipe; strings that the program uses may not.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from seg_research.mini.questions import Ability
from seg_research.recipes.recipe import Recipe
from seg_research.recipes.registry import find_recipe, recipe_names
from seg_research.recipes.seg_research.reward_settings import Mode, Preset, RewardSettings
from seg_research.recipes.seg_research.settings import SegResearchSettings
from seg_research.testing.samples import draw_sample

ROOT = Path(__file__).parents[2]
PACKAGES = ("seg_common", "seg_research", "post_segmentation", "retrieval_server")
HOMES = ("seg_research/recipes", "seg_research/mini", "seg_research/configs")
"""Where the words of recipes and of the mini benchmark belong."""
TESTING = "seg_research/testing"
"""Helpers that only tests import, among them the attacks on one recipe's grammar."""

TAG = re.compile(r"</?([A-Za-z_]\w*)>")
MANY_TAGS = 3
"""A string with so many bare tag names lists a grammar, as an expression for escaping would."""

COMMON = frozenset(
    {"answer", "format", "information", "keyframe", "point", "process", "search", "tools"}
)
"""Words of recipes that are also plain English: in a longer text they say nothing. Standing alone
they need a reason below.
"""
REUSABLE_TOOLS = "seg_research/tools"
"""Here tools that several recipes use are called by their names."""

FIELD = "a field of predictions.jsonl, whatever the recipe"
KIND = "the kind of a reusable tool's action, as records have had it since version 1"
ALLOWED = {
    ("retrieval_server/ray_serve.py", "search"): "the deployment's name",
    ("retrieval_server/web/searxng.py", "format"): "a parameter of SearXNG",
    ("seg_research/cli/cache.py", "answer"): "the unit of a progress bar: a provider's answers",
    ("seg_research/cli/demo.py", "search"): "a group of the configuration",
    ("seg_research/episode/escaping.py", "tools"): "a tag of chat templates",
    ("seg_research/episode/run.py", "format"): "what records call the reply to a malformed turn",
    ("seg_research/records/reader.py", "keyframe"): FIELD,
    ("seg_research/records/schema.py", "keyframe"): FIELD,
    ("seg_research/records/schema.py", "thinking"): FIELD,
    ("seg_research/records/writer.py", "search"): KIND,
    ("seg_research/tools/search.py", "search"): KIND,
    ("seg_research/tools/show_frame.py", "keyframe"): KIND,
    ("seg_research/training/extension_points.py", "point"): "a table of extension_points.toml",
    ("seg_research/training/launch/recipe_node.py", "search"): "a key of the configuration",
    ("seg_research/training/sft/config.py", "search"): "a key of the configuration",
    ("seg_research/viewer/actions.py", "point"): "what a viewer calls a point",
}
"""Words that stand alone, by file, each with the reason why it is not the recipe's."""
NAMES_A_RECIPE = {
    "seg_research/records/foreign.py": "the registry of other projects' rollouts, by import string",
}


class Words(NamedTuple):
    """What a recipe is made of, by kind."""

    tags: frozenset[str]
    terms: frozenset[str]
    tools: frozenset[str]
    abilities: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.tags | self.terms | self.tools | self.abilities


def in_all_settings(name: str) -> list[Recipe]:
    """Return a recipe in the settings that together show all its terms."""
    if name != "seg_research":
        return [find_recipe(name)]
    chosen = [RewardSettings(mode=mode, preset=preset) for mode in Mode for preset in Preset]
    return [find_recipe(name, SegResearchSettings(rewards=rewards)) for rewards in chosen]


def recipe_words(folder: Path) -> Words:
    """Read the words off the opening prompts, the grammars, the rubrics and the tools."""
    sample = draw_sample(folder)
    tags: set[str] = set()
    tools: set[str] = set()
    terms: set[str] = set()
    for name in recipe_names():
        for recipe in in_all_settings(name):
            prompt = "\n".join(message.plain() for message in recipe.prompt(sample))
            tags |= set(TAG.findall(prompt)) | recipe.escape.tags
            tools |= {function.name for d in recipe.descriptions for function in d.functions}
            terms |= {term.name for term in recipe.rubric.terms + recipe.rubric.factors}
    abilities = {str(ability) for ability in Ability}
    return Words(
        frozenset(tags - {"image"}), frozenset(terms), frozenset(tools), frozenset(abilities)
    )


def library_files() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not path.relative_to(ROOT).as_posix().startswith((*HOMES, TESTING)):
                yield path


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Give the string constants of a file with their lines, f-strings included, docstrings not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    documentation = {id(value) for value in statements}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documentation:
            yield node.lineno, node.value


def recipe_words_in(text: str, words: Words) -> set[str]:
    """Return the words of a recipe that a string holds."""
    bare = set(re.findall(r"[A-Za-z][\w-]*", text))
    found = {tag for tag in words.tags if re.search(rf"</?\s*{tag}\b", text)}
    if len(bare & words.tags) >= MANY_TAGS:
        found |= bare & words.tags
    found |= bare & (words.all - COMMON)
    return found | ({text} & words.all)


def violations(words: Words) -> list[tuple[str, int, str, str]]:
    """List (file, line, word, string) of every word that stands outside its home."""
    found: list[tuple[str, int, str, str]] = []
    for path in library_files():
        file = path.relative_to(ROOT).as_posix()
        known = words._replace(tools=frozenset()) if file.startswith(REUSABLE_TOOLS) else words
        for line, text in strings_of(path):
            found += [(file, line, word, text) for word in sorted(recipe_words_in(text, known))]
    return found


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Words:
    return recipe_words(tmp_path_factory.mktemp("recipe_words"))


def test_the_words_of_the_recipes_are_found(words):
    assert {"thinking", "search", "information", "keyframe", "answer", "tools"} <= words.tags
    assert {"box_iou", "tapering", "guidance", "format", "dense_imitation"} <= words.terms
    assert {"text_search", "image_search"} <= words.tools
    assert "in-video" in words.abilities


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("<thinking> so </thinking>", "thinking"),
        ("the answer follows </answer", "answer"),
        ("(search|keyframe|answer)", "search"),
        ("groups of tapering", "tapering"),
        ("ask text_search", "text_search"),
        ("in-video", "in-video"),
        ("point", "point"),
    ],
)
def test_a_word_of_a_recipe_is_noticed(words, text, word):
    assert word in recipe_words_in(text, words)


def test_plain_english_is_no_word_of_a_recipe(words):
    text = "the answer to a search holds a point, in another format"
    assert not recipe_words_in(text, words)


def test_no_word_of_a_recipe_stands_outside_its_folder(words):
    wrong = [
        f"{file}:{line}: {word!r} in {text[:70]!r}"
        for file, line, word, text in violations(words)
        if (file, word) not in ALLOWED
    ]
    assert not wrong, "words of a recipe outside recipes/:\n" + "\n".join(wrong)


def test_no_module_outside_names_one_recipe():
    wrong = [
        path.relative_to(ROOT).as_posix()
        for path in library_files()
        if any(
            re.search(rf"\bseg_research\.recipes\.{name}\b", path.read_text(encoding="utf-8"))
            for name in recipe_names()
        )
    ]
    assert wrong == list(NAMES_A_RECIPE)


def test_the_exceptions_are_still_needed(words):
    needed = {(file, word) for file, _, word, _ in violations(words)}
    assert ALLOWED.keys() <= needed
