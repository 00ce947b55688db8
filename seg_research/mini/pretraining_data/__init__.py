"""Lessons for a tiny vision-language model: reading passages, naming and locating figures, choosing
frames, and whole episodes.

They make of random weights what others download as a base model. Names come from the training split
alone.
"""
