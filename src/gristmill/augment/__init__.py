"""Noise in what a model reads: of tokens while it is trained, of characters in any text."""
