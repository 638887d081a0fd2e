"""Draws of a posterior: as networks to call, as values of parameters, and what is read off them."""
