"""Networks, each of one method."""
