"""Training with one Spark job for every step: the baseline that shows what starting jobs costs."""
