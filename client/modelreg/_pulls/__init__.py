"""What a pull writes: the cache, and the folders of the caller."""
