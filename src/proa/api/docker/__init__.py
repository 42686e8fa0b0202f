"""The Docker Engine API, one module per noun."""
