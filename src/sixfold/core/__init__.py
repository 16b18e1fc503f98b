"""What every package uses: errors, settings, files, run directory, console and pages; no torch."""
