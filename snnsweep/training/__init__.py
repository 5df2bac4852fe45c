"""Training: the loop, and the objectives that it minimises."""
