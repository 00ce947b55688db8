"""Run a policy over a benchmark, and judge what came of it."""
