"""A matrix product divided in three ways on Spark, and a model of what each takes."""
