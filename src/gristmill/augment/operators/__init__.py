"""Ways to get a character wrong; the file name is the operator's name."""
