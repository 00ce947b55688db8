"""Before and around a run: configuration, checks, the run folder, the trainer's process."""
