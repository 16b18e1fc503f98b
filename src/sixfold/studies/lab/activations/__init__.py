"""Forward and backward as two stages, with the activations kept in between in various places."""
