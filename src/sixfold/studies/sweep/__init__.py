"""Sweeps: many short runs over a grid of settings, and the laws that their figures follow.

Three kinds. `time`: how fast each combination trains, with speed-up, efficiency and the fits of
Amdahl, Gustafson and Ernest. `quality`: what each combination reaches, and what each setting does
to it. `delay`: what Spark itself adds to a job, measured from its own events.
"""
