"""How it is run: planning, execution, storage, Ray and the command line."""
