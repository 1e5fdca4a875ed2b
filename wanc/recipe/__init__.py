"""What to build: the recipe's format, and loading it from strict YAML with the place of every value."""

from __future__ import annotations

from wanc.recipe.load import LoadedRecipe, load
from wanc.recipe.schema import Recipe
from wanc.recipe.tree import Mark, Marks

__all__ = ["LoadedRecipe", "Mark", "Marks", "Recipe", "load"]
