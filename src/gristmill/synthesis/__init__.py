"""Text that models of ours write: from a teacher, paraphrased, translated there and back; and what of it is good enough."""
