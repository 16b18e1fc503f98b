"""Is everything here that a run needs? Looked at in seconds, before hours are spent."""
