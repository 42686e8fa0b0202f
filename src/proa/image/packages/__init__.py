"""Images made of a distribution's packages and a few lines of configuration."""
