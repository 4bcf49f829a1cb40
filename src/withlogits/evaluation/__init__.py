"""Losses of arrays that lie in files and may be larger than memory: what `withlogits loss` is made of."""
