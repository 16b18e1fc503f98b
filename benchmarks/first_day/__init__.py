"""What one does on a first day, with Lightning and skorch."""
