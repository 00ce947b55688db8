"""The episode: a state machine without I/O, its policy's protocol, and the loop that runs it."""
