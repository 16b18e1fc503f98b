"""The learning-rate range test: `sixfold lr-find`."""
