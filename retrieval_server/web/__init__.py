"""Search on the web: providers, what they cost, and the pages behind their results. Everything that
comes from there is hostile.
"""
