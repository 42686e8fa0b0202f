"""Images: names, the store, layers, disks and archives."""
