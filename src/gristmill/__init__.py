"""Turns the text a team already has into a language model, and says what that model is worth."""

__version__ = "0.1.0"
