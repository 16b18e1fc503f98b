"""Writing the page of any run again."""
