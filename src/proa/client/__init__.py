"""The Python SDK: `from proa.client import Client`.

The names are loaded on first use, so that the command line can share `connection` without paying
for the rest.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.client.sdk import Client as Client
    from proa.client.sdk import Image as Image
    from proa.client.sdk import Instance as Instance
    from proa.client.sdk import Result as Result

__all__ = ["Client", "Image", "Instance", "Result"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'proa.client' has no attribute '{name}'")
    from proa.client import sdk

    return getattr(sdk, name)
