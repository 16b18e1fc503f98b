"""Parameter servers: who holds which weights, who applies which update, and who works on what."""
