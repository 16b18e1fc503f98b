"""Laboratory: ways to divide the work that training does not use, as real Spark jobs, measured."""
