"""What keeps work that yields from running though a worker has it: policy, heat, or interactive requests."""

from pilotlight.scheduler.gate import Orders


class Holds:
    """What is wanted of all workers now."""

    def __init__(self) -> None:
        self.orders = Orders()
        """Of the policy."""
        self.is_resting = False
        """So that the machine cools."""

    def is_held(self, model: str, urgent_models: set[str]) -> bool:
        """Its worker is to compute nothing that yields: in a rest, or if the policy says so, none does, and
        while another has interactive requests, that has the machine for itself."""
        return self.is_resting or self.orders.holds_yielding or bool(urgent_models - {model})

    def reason(self, urgent_models: set[str]) -> str:
        """Why what yields is paused, for a person."""
        if self.orders.holds_yielding:
            return "resting, as the policy says"
        is_cooling = self.is_resting and not urgent_models
        return "resting, so that the machine cools" if is_cooling else "paused for interactive requests"
