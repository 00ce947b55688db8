"""Local corpora: reading, indexing, ranking, and the capacity they need."""
