"""Registries: pull, push and ask (OCI distribution specification 1.1)."""
