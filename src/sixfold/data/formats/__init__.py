"""One file per form in which data sets are found: each lists records, and reads no pixels."""
