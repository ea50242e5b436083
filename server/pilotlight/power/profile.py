"""Linux: whether the user wants power saved, by the firmware's platform profile.

That is what power-profiles-daemon, tuned and TLP set when somebody chooses "power saver"
(Documentation/ABI/testing/sysfs-platform_profile). Where firmware has no profiles it is not known.
"""

from collections.abc import Iterator

from pilotlight.power.files import Files
from pilotlight.power.finding import Finding, Known, Missing
from pilotlight.power.reading import Confidence

PROFILE = "sys/firmware/acpi/platform_profile"


def read(files: Files) -> Iterator[Finding]:
    """`low-power` saves; so does `quiet` where that is the lowest there is."""
    profile = files.text(PROFILE)
    if profile is None:
        yield Missing("is_saving", "firmware has no power profiles")
        return
    has_low = "low-power" in (files.text(f"{PROFILE}_choices") or "").split()
    is_saving = profile == "low-power" or (profile == "quiet" and not has_low)
    yield Known("is_saving", is_saving, f"platform_profile {profile[:20]}", Confidence.DERIVED)
