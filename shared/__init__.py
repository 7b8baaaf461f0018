"""What both services stand on; imports neither of them."""
