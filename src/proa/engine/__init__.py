"""The engine: the only package that knows images, networks, volumes and isolations."""
