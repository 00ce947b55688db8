"""One module a mask back-end."""
