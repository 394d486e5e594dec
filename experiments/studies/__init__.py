"""Studies: questions, and the experiments that answer them."""
