"""What the three packages share: kinds of errors, and files that survive a crash. Imports nothing
of ours.
"""
