"""The signatures that other libraries made familiar, on the losses of this one: one module for each library."""
