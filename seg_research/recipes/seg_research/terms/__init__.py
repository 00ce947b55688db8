"""One file a family of terms. A term reads typed model turns only; what a tool returned can never
earn anything.
"""
