"""The loop nest of a convolution divided in seven ways, each as Spark jobs."""
