"""The data sets that methods are compared on: one in a file, which has its name."""
