"""Hydra configuration of `seg-research train`: verl's own tree, our root key `seg`, and one small
file for each choice.
"""
