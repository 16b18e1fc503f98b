"""Planning: what every way to divide a training would take on this machine, and on larger ones."""
