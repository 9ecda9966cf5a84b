"""Training: batches, the loop, and the callbacks that record it."""
