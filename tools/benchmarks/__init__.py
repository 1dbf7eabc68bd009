"""Time, memory, bytes and accuracy of the losses beside their peers; rows go into tools/results."""
