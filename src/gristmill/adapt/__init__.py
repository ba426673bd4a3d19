"""From a base model to a task: labelled data, heads, ways to adapt, and what the result is worth."""
