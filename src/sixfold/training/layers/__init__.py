"""Networks run forward and backward by explicit operations, without autograd's graph."""
