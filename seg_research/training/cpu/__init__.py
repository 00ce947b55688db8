"""verl on a machine without a GPU: platform and engine."""
