"""The container isolation: namespaces and cgroups on the host's kernel."""

from proa.isolation.container.isolation import Containers

__all__ = ["Containers"]
