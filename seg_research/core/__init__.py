"""The vocabulary every other layer speaks: errors, coordinates, frames, masks, transcripts.
Standard library, numpy and Pillow only.
"""
