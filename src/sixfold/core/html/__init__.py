"""Pages: one frame, charts, tables, pictures; self-contained and offline."""
