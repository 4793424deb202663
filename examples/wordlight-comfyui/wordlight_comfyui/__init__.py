"""wordlight's maps as nodes of ComfyUI."""

from wordlight_comfyui.nodes import NODE_CLASS_MAPPINGS as NODE_CLASS_MAPPINGS
from wordlight_comfyui.nodes import NODE_DISPLAY_NAME_MAPPINGS as NODE_DISPLAY_NAME_MAPPINGS
