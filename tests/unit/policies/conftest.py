"""An engine around the untrained tiny model, and a way to put words into its mouth."""

import contextlib

import pytest


@pytest.fixture(scope="session")
def engine(tiny_folder, tiny_processor):
    torch = pytest.importorskip("torch")
    from seg_research.policies.engine import TransformersEngine

    return TransformersEngine.load(tiny_folder, tiny_processor, torch.device("cpu"))


@pytest.fixture
def forced(engine):
    """Return a context manager in which the model finds certain tokens overwhelmingly likely: row
    by row, step by step.
    """

    @contextlib.contextmanager
    def force(*rows):
        step = 0

        def bias(model, arguments, output):
            nonlocal step
            for row, tokens in enumerate(rows):
                if step < len(tokens):
                    output.logits[row, -1, tokens[step]] += 1e4
            step += 1

        handle = engine.model.register_forward_hook(bias)
        try:
            yield
        finally:
            handle.remove()

    return force
