"""What the three packages share: kinds of errors, and files that survive a crash. Imports nothing
of ours.
"""

__version__ = "0.1.0"
