"""Evaluation protocols, one module each: it offers an `EvaluationProtocol` named `SPEC`, and
`seg-research evaluate --protocol NAME` runs the one whose module is called NAME (`jf`), or any
other as `package.module:NAME`. The first sentence of its docstring is its line in `--help`.
"""

from __future__ import annotations

from seg_common.registry import Registry
from seg_research.evaluation.protocol import EvaluationProtocol

PROTOCOLS = Registry(__name__, EvaluationProtocol, "evaluation protocol")
