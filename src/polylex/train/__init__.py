"""Training: stage 1 "align" and stage 2 "distill" over one loop. Needs the extra `polylex[train]`.

from polylex.train.recipe import read_recipe, AlignConfig
from polylex.train.session import align

align(read_recipe(AlignConfig, "recipes/align-toy.toml", {}))
"""
