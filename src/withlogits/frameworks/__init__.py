"""The adapters: one for each framework, loaded at its first array (see `withlogits.dispatch`)."""
