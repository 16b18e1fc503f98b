"""Deep Compression: pruning, weight sharing and entropy coding, in one checked file."""
