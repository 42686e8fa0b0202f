"""Side by side with docker, podman and runc; every sample kept."""
