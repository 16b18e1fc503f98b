"""A search over settings of training, whose decisions do not depend on who trains how fast."""
