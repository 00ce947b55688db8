"""The original authors' rewards, accidents included (specs seg_research §5): for comparing runs
with theirs and for reading their records.

Everything here judges one decoded text in which model turns and observations stand side by side,
because that is what the original does; findings C1 lists what it pays for. Train with the `robust`
terms.
"""

from seg_research.recipes.seg_research.compat.terms import RecordedTruth, compat_terms
from seg_research.recipes.seg_research.compat.text import RecordedTranscript, decoded_response

__all__ = ["RecordedTranscript", "RecordedTruth", "compat_terms", "decoded_response"]
