"""The terminal: options from settings, progress, tables."""
