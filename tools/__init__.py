"""Scripts around the package: see README.md beside this file."""
