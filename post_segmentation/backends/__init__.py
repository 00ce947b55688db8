"""The mask back-ends: each module here defines one as `SPEC`, and is found by being here.

A module of this folder is imported for `--help`, so it imports torch and its like in `build` only,
or leaves them to a module that `build` imports.
"""
