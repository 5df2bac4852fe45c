"""One thing that the doctor looked at."""

from dataclasses import dataclass

# torch 2.x goes with torchvision 0.(x+15) and torchaudio 2.x.
WORKING_SET = "torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0"


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `mend` is empty where it is fine."""

    what: str
    found: str
    mend: str = ""
