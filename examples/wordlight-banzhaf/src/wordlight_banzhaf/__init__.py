"""Banzhaf values of words, as an attribution method for wordlight."""

from wordlight_banzhaf.method import Banzhaf as Banzhaf
