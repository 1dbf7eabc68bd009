"""The Triton kernels compiled for GPUs that need not be there, and what their machine code costs."""
