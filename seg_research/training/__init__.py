"""The only package that imports verl, ray or hydra: everything of ours that plugs into the trainer
(map: verl/README.md).
"""
