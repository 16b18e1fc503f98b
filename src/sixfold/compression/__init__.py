"""Deep compression: prune, share, code, into one checked file."""
