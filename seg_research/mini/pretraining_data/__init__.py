"""Training examples for a tiny vision-language model: questions about passages, naming and locating
figures, choosing
frames, and whole episodes.

They make of random weights what others download as a base model. Names come from the training split
alone.
"""
