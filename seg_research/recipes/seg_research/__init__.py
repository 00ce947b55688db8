"""Seg-ReSearch (arXiv:2602.04454): interleaved reasoning and search, then a key frame, then a box
and a point.
"""
