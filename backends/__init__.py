"""Models: each backend turns a real pipeline into the few primitives that methods need."""
