"""Write, read and edit the files of graphs: one module for each library that does."""
