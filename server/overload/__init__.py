"""What is taken in and what is refused when there is too much."""
