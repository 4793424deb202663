"""The viewer: maps as one HTML page that needs nothing beside it and no network."""

from wordlight.attribution.viewer.page import Viewer as Viewer
from wordlight.attribution.viewer.panel import Panel as Panel
