"""The `mini` benchmark: procedurally drawn videos and a made-up body of knowledge, in the on-disk layout of OK-VOS.

A seed and a number fix a world (a video, four questions, the passages that answer them); nothing else does. Names bind to sprites at
random, so no question but the in-video ones can be answered without a search.
"""
