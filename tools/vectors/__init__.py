"""The files of spec/vectors/ that are made from the code."""
