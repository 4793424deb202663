"""What ComfyUI looks for in a folder of ``custom_nodes``; the package is installed beside it."""

from wordlight_comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
