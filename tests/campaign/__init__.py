"""A campaign of random calls: a generator, a reference that shares no code with the package, and their comparison.

    python -m tests.campaign native 0 1234

makes call 1234 of seed 0 again on the native backend (for 'triton' with TRITON_INTERPRET=1) and prints what is wrong
with it, and with a smaller one.
"""
