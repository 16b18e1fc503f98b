"""Workers train apart and merge their weights every few steps."""
