"""`RUNGS` in a space file: where trials are compared on their way, and by what light measurement."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from snnsweep import registry
from snnsweep.config import sentence
from snnsweep.errors import UserError, nearest
from snnsweep.groups import Group, name_in
from snnsweep.measurement import Gradients
from snnsweep.result import Direction, direction
from snnsweep.sweep.asha import Asha

AT_THE_END = ("audit/", "time/")  # metrics of an ended trial alone


class Rungs(Group):
    """Where trials are compared on their way: epochs grace * eta^k.

    Attributes:
        grace: epochs that every trial trains.
        eta: one in so many goes on at a rung.
        brackets: of Hyperband; 1 is plain successive halving.
        order: of the front that is cut, `epsilon_net` or `crowding`.
        metrics: what is compared, with directions; an epsilon-net begins with the best in the first one.
        suite: the attacks at a rung.
        samples: how many images they attack.
        gradients: `exact`, or `fast`: the attacks follow a copy with folded batch norms, and the model judges.
    """

    grace: int = Field(1, ge=1)
    eta: int = Field(3, ge=2)
    brackets: int = Field(1, ge=1)
    order: Literal["epsilon_net", "crowding"] = "epsilon_net"
    metrics: dict[str, Direction] = Field(min_length=1)
    suite: Annotated[str, name_in(registry.suites)] = "quick"
    samples: int = Field(64, ge=1)
    gradients: Gradients = "exact"

    @classmethod
    def of(cls, given: Any, objectives: Mapping[str, Direction]) -> "Rungs":
        """From what a space file says; without `metrics`, the objectives that can be measured on the way.

        Raises:
            UserError: everything that is wrong with it.
        """
        if not isinstance(given, Mapping):
            raise UserError(f'RUNGS is {given!r}; write a dict such as {{"grace": 2, "eta": 3}}, or {{}} for defaults')
        known = cls.model_fields
        problems = [f"{key}: unknown; {nearest(str(key), known)}" for key in given if key not in known]
        settings: dict[str, Any] = {"metrics": [name for name in objectives if not name.startswith(AT_THE_END)]}
        settings |= {key: value for key, value in given.items() if key in known}
        if isinstance(settings["metrics"], tuple | list):
            settings["metrics"] = {name: _way(name, objectives, problems) for name in settings["metrics"]}
        try:
            return cls._unless(problems, cls.model_validate(settings))
        except ValidationError as error:
            raise UserError(_listed(problems + [sentence(one) for one in error.errors()])) from None

    @classmethod
    def _unless(cls, problems: list[str], rungs: "Rungs") -> "Rungs":
        late = [name for name in rungs.metrics if name.startswith(AT_THE_END)]
        problems += [f"metrics: {name!r} is known at the end of a trial alone; drop it" for name in late]
        if problems:
            raise UserError(_listed(problems))
        return rungs

    def asha(self, longest: int, seed: int) -> Asha | None:
        """The rungs of a sweep whose trials train so many epochs at most; None where that ends before the first rung.

        Raises:
            UserError: more brackets than there are rungs to begin at.
        """
        if longest <= self.grace:
            return None
        own = {"grace": self.grace, "eta": self.eta, "brackets": self.brackets, "order": self.order}
        return Asha(self.metrics, longest, **own, seed=seed)  # type: ignore[arg-type]


def _way(name: Any, objectives: Mapping[str, Direction], problems: list[str]) -> Any:
    try:
        return objectives.get(name) or direction(name)
    except (UserError, AttributeError, TypeError) as error:
        problems.append(f"metrics: {error}")
        return "maximize"


def _listed(problems: Iterable[str]) -> str:
    return "\n".join(["RUNGS cannot be used:", *(f"  {text}" for text in problems)])
