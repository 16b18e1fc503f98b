"""Networks run forward and backward without autograd's graph: see
`sixfold.train.layers.executor`.
"""
