"""The area-level model of Fay and Herriot: fits, mean squared errors, intervals, choice and checking of the model."""
