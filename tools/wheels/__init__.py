"""What tools/build_wheels.sh builds the wheels with, and how they are tried."""
