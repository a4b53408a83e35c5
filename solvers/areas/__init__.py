"""Instances with areas that send side by side: a certified bound, and plans with joint beams."""
