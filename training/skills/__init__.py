"""The skills of the built-in model, each a function from a random source to one exchange."""
