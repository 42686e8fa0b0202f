"""The HTTP API: Docker's Engine API and Proa's extensions."""
