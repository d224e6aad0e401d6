"""What a fit leaves unexplained, which rows and groups it rests on, and what in it looks wrong."""
