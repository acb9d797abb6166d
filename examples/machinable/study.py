"""An experiment: its configuration is its identity, its directory holds what it found."""

from machinable import Interface
from pydantic import BaseModel


class Study(Interface):
    """Descends a parabola."""

    class Config(BaseModel):
        """How fast, and for how long."""

        rate: float = 0.1
        steps: int = 20

    def __call__(self) -> None:
        x, path = 1.0, []
        for _ in range(self.config.steps):
            x -= self.config.rate * 2 * x
            path.append(x)
        self.save_file("result.json", {"x": x, "steps": len(path)})
        self.save_file("path.jsonl", path)
