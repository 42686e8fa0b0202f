"""Container or vm: facts found in an image, a disk or an app file, and what follows from them."""
