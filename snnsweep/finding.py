"""One thing that the doctor looked at."""

from dataclasses import dataclass

# torch 2.x goes with torchvision 0.(x+15) and torchaudio 2.x.
WORKING_SET = "torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0"


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        mend: what to do; empty where nothing is wrong.
        absent: that it is not there, and is needed by those alone who ask for it.
    """

    what: str
    found: str
    mend: str = ""
    absent: bool = False
