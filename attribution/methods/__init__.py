"""The methods, one file each, and the controls they are held against."""
