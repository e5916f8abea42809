"""The reference as its authors run it, and the golden data it makes."""
