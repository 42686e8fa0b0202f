"""A machine taken apart: an app file drafted from the services on its disk, every guess marked."""
