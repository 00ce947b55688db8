"""A recipe of one's own, whole: the policy first chooses a frame, then locates the target in two
parts (docs/training.md).

PYTHONPATH=examples seg-research train seg.episode.recipe=own_recipe:TwoParts …
"""

from own_recipe.recipe import TwoParts

__all__ = ["TwoParts"]
