"""What every package uses: errors, settings, files, the run directory, the console, charts and
pages. Knows no torch.
"""
