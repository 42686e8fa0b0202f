"""App files (the compose specification): read with the place of every word, and what they say."""
