"""XMem: video object segmentation with a sensory, a working and a long-term memory (Cheng &
Schwing, ECCV 2022).
"""
