"""How well a form keeps what runs in it from its host and its neighbours: asked inside, scored."""

from proa.compare.isolation.gathering import gather as gather
from proa.compare.isolation.score import judge as judge
from proa.compare.isolation.trials import LIMITS as LIMITS

__all__ = ["LIMITS", "gather", "judge"]
