"""What predictions are worth: pure functions of what is true and what was predicted, each with an interval."""
