"""Pictures of instances and solutions; matplotlib is imported here and nowhere else."""

from finecast.pictures.caches import cache_picture
from finecast.pictures.city import city_picture
from finecast.pictures.gantt import slot_gantt
from finecast.pictures.network import network_picture
from finecast.pictures.page import overview
from finecast.pictures.style import save_picture

__all__ = [
    "cache_picture",
    "city_picture",
    "network_picture",
    "overview",
    "save_picture",
    "slot_gantt",
]
