"""The episode: a state machine without I/O, the protocols of its policy, and the loop that runs it."""
