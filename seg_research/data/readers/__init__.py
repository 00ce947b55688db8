"""One module a benchmark: its files on disk to samples."""
