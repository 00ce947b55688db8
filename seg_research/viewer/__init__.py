"""What a run looks like: one HTML page that needs nothing but a browser. All text in it is treated
as hostile.
"""
