"""What a GPU does with the toolkit: is it right, and how fast is it."""
